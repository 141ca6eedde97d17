package oci

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// execution is one exec under way: what running and killing its processes
// needs, whatever becomes of its output.
type execution struct {
	*Exec
	cgroupProcs []string   // see ExecSyncOptions.CgroupProcs
	outputs     []string   // the pipes of its output: see pipeName
	theirs      []*os.File // what only the command is to have open
	mark        mark
	started     uint64         // start time of the runtime, in the kernel's ticks
	owner       *UserNamespace // whose root the pipes belong to
	exited      chan struct{}
	waitErr     error // of Cmd.Wait, once exited is closed
}

// launch starts the runtime, or the helper that starts it, and closes the
// descriptors in theirs, whether that succeeds or not. The helper holds one end
// of a pipe, the lifeline, and kills what it runs when the other end, which
// only this process holds, closes: so nothing is left of an exec if the daemon
// is killed.
func (e *execution) launch() error {
	if err := e.ownPipes(); err != nil {
		return errors.Join(err, closeAll(e.theirs))
	}
	held, lifeline, err := os.Pipe()
	if err != nil {
		return errors.Join(err, closeAll(e.theirs))
	}
	e.theirs = append(e.theirs, held)
	if e.helped {
		e.Cmd.ExtraFiles = []*os.File{held}
	}
	e.Cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := errors.Join(e.startMarked(), closeAll(e.theirs)); err != nil {
		return errors.Join(err, lifeline.Close())
	}
	if p, ok := readProc(e.Cmd.Process.Pid); ok {
		e.started = p.start
	}
	go func() {
		e.waitErr = e.Cmd.Wait()
		lifeline.Close() //nolint:errcheck // nothing is written to it
		close(e.exited)
	}()
	return nil
}

// ownPipes lets a process in a user namespace open its pipes by name, as in
// /dev/stdout.
func (e *execution) ownPipes() error {
	if e.owner == nil {
		return nil
	}
	uid, gid := e.owner.Root()
	for _, f := range e.theirs {
		if err := f.Chown(int(uid), int(gid)); err != nil {
			return err
		}
	}
	return nil
}

func closeAll(files []*os.File) error {
	var errs []error
	for _, f := range files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// startMarked starts the runtime from a thread that carries the mark, which
// every process that comes of it inherits.
func (e *execution) startMarked() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(e.mark), 0, 0, 0) != nil {
		e.mark = unmarked
		return e.Cmd.Start()
	}
	err := e.Cmd.Start()
	// 0 brings back the thread's default. It can't fail where the above did not.
	return errors.Join(err, unix.Prctl(unix.PR_SET_TIMERSLACK, 0, 0, 0, 0))
}

// outcome is called when the runtime has ended by itself: the exit code of the
// process, or, with the runtime's words, why there was none.
func (e *execution) outcome(r *Runtime, id string, words *tail) (int, error) {
	var exit *exec.ExitError
	if e.waitErr != nil && !errors.As(e.waitErr, &exit) {
		return 0, fmt.Errorf("exec in container %s: %w", id, e.waitErr)
	}
	status, _ := e.Cmd.ProcessState.Sys().(syscall.WaitStatus)
	if e.processID() != 0 && !status.Signaled() {
		return status.ExitStatus(), nil
	}
	// The runtime itself failed: it has started no process, or left its own.
	failure := &CommandError{
		Runtime: r.Path(), Command: "exec " + id, ExitStatus: max(status.ExitStatus(), 0), Output: words.String(),
	}
	if status.Signaled() {
		failure.Signal = status.Signal()
	}
	return 0, failure
}

// processID is the PID of the process in the container, 0 while there is none.
func (e *execution) processID() int {
	text, err := os.ReadFile(e.PidFile)
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid <= 0 {
		return 0
	}
	return pid
}
