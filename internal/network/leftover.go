package network

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-cri/gantry/internal/errkind"
)

const (
	leftoverGrace    = 10 * time.Second // for plugins of a dead daemon to end by themselves
	leftoverPatience = 5 * time.Second  // for killed plugins to be gone
	leftoverInterval = 5 * time.Millisecond
)

// hold locks the file at path for one run of a pod's plugins, which inherit
// it. The lock is free again when the file is closed here and in every process
// that the run started. So if it is taken, plugins of an earlier run still
// live: they escaped their deadline, or their daemon was killed. They have to
// be gone before anything else is done to the pod, because an ADD that ends
// after our DEL would leave an address and an interface that no one knows of.
// After the grace they are killed. The grace lets a healthy one end in order:
// a DEL cut short can leave what the next DEL does not find any more.
func hold(ctx context.Context, path string, grace time.Duration) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	kill := time.Now().Add(grace)
	for ; ; time.Sleep(leftoverInterval) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
		}
		if ctx.Err() != nil {
			return nil, errors.Join(fmt.Errorf("wait for plugins of an earlier run: %w", context.Cause(ctx)), f.Close())
		}
		if time.Now().Before(kill) {
			continue
		}
		pids, err := killHolders(f)
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		if time.Since(kill) > leftoverPatience {
			return nil, errors.Join(f.Close(), errkind.Errorf(errkind.Unavailable,
				"plugins of an earlier run do not end though killed (processes %v)", pids))
		}
	}
}

// killHolders kills every other process that has f's file open, and returns
// them.
func killHolders(f *os.File) ([]int, error) {
	target, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	if err != nil {
		return nil, err
	}
	procs, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var killed []int
	for _, p := range procs {
		pid, err := strconv.Atoi(p.Name())
		if err != nil || pid == os.Getpid() || !holds(pid, target) {
			continue
		}
		if killHolder(pid, target) {
			killed = append(killed, pid)
		}
	}
	return killed, nil
}

// killHolder kills pid if it still has target open once it can't be mistaken
// for another process.
func killHolder(pid int, target string) bool {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return holds(pid, target) && unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) == nil
}

// holds reports whether the process has the file open. A child of ours that has
// not yet executed its program still has all our files and does not count.
func holds(pid int, target string) bool {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	fds, err := os.ReadDir(filepath.Join(dir, "fd"))
	if err != nil {
		return false
	}
	for _, fd := range fds {
		if link, err := os.Readlink(filepath.Join(dir, "fd", fd.Name())); err == nil && link == target {
			return !sameProgram(dir)
		}
	}
	return false
}

func sameProgram(dir string) bool {
	theirs, err := os.Readlink(filepath.Join(dir, "exe"))
	if err != nil {
		return false
	}
	ours, err := os.Readlink("/proc/self/exe")
	return err == nil && strings.TrimSuffix(theirs, " (deleted)") == strings.TrimSuffix(ours, " (deleted)")
}
