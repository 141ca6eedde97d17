package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-cri/gantry/internal/node"
)

// KillAll ends every process of the cgroup and of all below it with SIGKILL,
// and returns when they are gone or when ctx ends. On version 1 the cgroup
// can't start processes any more afterwards: it is meant to be removed next.
// The root, and a cgroup in which the daemon itself runs, are refused.
func KillAll(ctx context.Context, f node.Facts, path string) error {
	if isRoot(path) || holdsDaemon(f, path) {
		return fmt.Errorf("kill cgroup %q: the daemon runs in it", path)
	}
	if f.CgroupV2 {
		dir := filepath.Join(f.CgroupRoot, Clean(path))
		done, err := killV2(ctx, dir)
		if err != nil {
			return fmt.Errorf("kill cgroup %s: %w", path, err)
		}
		if done {
			return nil
		}
	}
	if err := stopForks(f, path); err != nil {
		return fmt.Errorf("kill cgroup %s: %w", path, err)
	}
	if err := killLoop(ctx, f, path); err != nil {
		return fmt.Errorf("kill cgroup %s: %w", path, err)
	}
	return nil
}

// killV2 lets the kernel kill the whole tree and waits until it is empty. It
// reports false where the kernel is too old for that (before 5.14).
func killV2(ctx context.Context, dir string) (bool, error) {
	kill := filepath.Join(dir, "cgroup.kill")
	events, err := os.Open(filepath.Join(dir, "cgroup.events"))
	if err != nil {
		if gone(err) {
			return true, nil
		}
		return false, err
	}
	defer events.Close() // opened for reading only
	switch err := write(kill, "1"); {
	case errors.Is(err, unix.ENOENT):
		return !exists(dir), nil
	case err != nil && !gone(err):
		return false, err
	}
	return true, waitUnpopulated(ctx, events)
}

// stopForks keeps the version 1 cgroup from growing while it is killed, and
// wakes what is frozen in it.
func stopForks(f node.Facts, path string) error {
	if pids, ok := f.CgroupV1["pids"]; ok {
		err := writeExisting(filepath.Join(pids, Clean(path), "pids.max"), "0")
		if err != nil {
			return err
		}
	}
	return Thaw(f, path)
}

// Thaw wakes what the version 1 freezer holds in the cgroup and below: no signal
// reaches it. Version 2 lets SIGKILL through. A cgroup that is gone is no error.
func Thaw(f node.Facts, path string) error {
	freezer, ok := f.CgroupV1["freezer"]
	if !ok {
		return nil
	}
	return walk(filepath.Join(freezer, Clean(path)), func(dir string) error {
		return writeExisting(filepath.Join(dir, "freezer.state"), "THAWED")
	})
}

// writeExisting writes text to a file of a cgroup; a file that is gone is no error.
func writeExisting(file, text string) error {
	if err := write(file, text); !gone(err) {
		return err
	}
	return nil
}

// killLoop kills what the cgroup lists, waits for it, and looks again, until
// nothing is listed or ctx ends.
func killLoop(ctx context.Context, f node.Facts, path string) error {
	for {
		victims, listed, err := openVictims(f, path)
		if err != nil || !listed {
			return err
		}
		err = victims.killAndWait(ctx)
		victims.close()
		if err != nil {
			return err
		}
		select { // kernels before 5.3 list a zombie until it is reaped
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
}

// A victim is a process held by a pidfd, so that its number can't become
// another process's between look and kill.
type victims []victim

type victim struct{ pid, fd int }

// openVictims takes hold of every process of the cgroup. The list is read
// again afterwards: what is in both readings is what the pidfds refer to. The
// second result is false when the cgroup has no process at all.
func openVictims(f node.Facts, path string) (victims, bool, error) {
	pids, err := Procs(f, path)
	if err != nil || len(pids) == 0 {
		return nil, false, err
	}
	var held victims
	for _, pid := range pids {
		fd, err := unix.PidfdOpen(pid, 0)
		if errors.Is(err, unix.ESRCH) {
			continue
		}
		if errors.Is(err, unix.EMFILE) && len(held) > 0 {
			break // the next round takes the rest
		}
		if err != nil {
			held.close()
			return nil, false, fmt.Errorf("take hold of process %d: %w", pid, err)
		}
		held = append(held, victim{pid, fd})
	}
	again, err := Procs(f, path)
	if err != nil {
		held.close()
		return nil, false, err
	}
	var sure victims
	for _, v := range held {
		if _, listed := slices.BinarySearch(again, v.pid); listed {
			sure = append(sure, v)
		} else {
			victims{v}.close()
		}
	}
	return sure, true, nil
}

func (vs victims) killAndWait(ctx context.Context) error {
	fds := make([]unix.PollFd, 0, len(vs))
	for _, v := range vs {
		err := unix.PidfdSendSignal(v.fd, unix.SIGKILL, nil, 0)
		if err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("kill process %d: %w", v.pid, err)
		}
		fds = append(fds, unix.PollFd{Fd: int32(v.fd), Events: unix.POLLIN})
	}
	for len(fds) > 0 {
		if err := poll(ctx, fds); err != nil {
			return err
		}
		fds = slices.DeleteFunc(fds, func(p unix.PollFd) bool { return p.Revents != 0 })
	}
	return nil
}

func (vs victims) close() {
	for _, v := range vs {
		unix.Close(v.fd) // a pidfd has nothing to lose
	}
}

// waitUnpopulated returns when the version 2 cgroup whose cgroup.events is
// given has no process left.
func waitUnpopulated(ctx context.Context, events *os.File) error {
	buf := make([]byte, 256)
	for {
		n, err := events.ReadAt(buf, 0)
		if n == 0 && err != nil {
			if gone(err) {
				return nil
			}
			return err
		}
		if !populated(string(buf[:n])) {
			return nil
		}
		fds := []unix.PollFd{{Fd: int32(events.Fd()), Events: unix.POLLPRI}}
		if err := poll(ctx, fds); err != nil {
			return err
		}
	}
}

// poll waits until one of fds is ready or ctx ends. Contexts are looked at
// again every 100 ms: one that is cancelled is a caller that gave up.
func poll(ctx context.Context, fds []unix.PollFd) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		wait := 100 * time.Millisecond
		if deadline, ok := ctx.Deadline(); ok {
			wait = max(min(wait, time.Until(deadline)), time.Millisecond)
		}
		n, err := unix.Poll(fds, int(wait.Milliseconds()))
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		if n > 0 {
			return nil
		}
	}
}
