package oci

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-cri/gantry/internal/errkind"
)

const (
	// DefaultMaxOutput bounds each of the two outputs of ExecSync so that both
	// together fit into one gRPC message of 16 MiB, the limit of CRI clients.
	DefaultMaxOutput = 8<<20 - 64<<10
	// drainGrace is how long output is still awaited after the process ended,
	// where a process that it left behind holds the pipe open.
	drainGrace = 250 * time.Millisecond
)

// ExecSyncOptions say what to run in a container, and within which bounds.
type ExecSyncOptions struct {
	Args []string
	// Config and Dir are as in ExecOptions.
	Config, Dir string
	// Timeout ends the process and everything that it started. 0 is none: only
	// the context bounds it then.
	Timeout time.Duration
	// MaxOutput bounds what is kept of each of the two outputs, in bytes; 0 is
	// DefaultMaxOutput.
	MaxOutput int
	// CgroupProcs are the files that list the container's processes
	// (cgroup.ProcsFiles): that is where a process is found that has left its
	// parent, its session and its terminal.
	CgroupProcs []string
	// Helper is the program execwait: see execwait/ in the repository's root. Without it ("")
	// runc does not return while a process left in the background holds the
	// output open, so that only the timeout ends that; and under crun the
	// process has the daemon's OOM score.
	Helper string
}

// ExecResult is how a process in a container ended.
type ExecResult struct {
	Stdout, Stderr []byte
	ExitCode       int // 128 + the signal if one ended it
	// Truncated is true if an output was longer than kept. The end of such an
	// output is a line that says so.
	Truncated bool
}

// execution is one ExecSync under way.
type execution struct {
	*Exec
	options        ExecSyncOptions
	stdout, stderr *capture
	mark           mark
	started        uint64 // start time of the runtime, in the kernel's ticks
	exited         chan struct{}
	waitErr        error // of Cmd.Wait, once exited is closed
}

// ExecSync runs a process in the container id and waits for it. Its standard
// input is empty. When the timeout passes (error kind Timeout) or ctx ends,
// the process and all that it started are killed before ExecSync returns,
// which takes less than a second.
//
// What the process leaves behind in the background when it ends by itself
// goes on running, but its output is not waited for.
func (r *Runtime) ExecSync(ctx context.Context, id string, o ExecSyncOptions) (_ ExecResult, err error) {
	if o.MaxOutput <= 0 {
		o.MaxOutput = DefaultMaxOutput
	}
	command, err := r.ExecCommand(context.Background(), id, ExecOptions{Args: o.Args, Config: o.Config, Dir: o.Dir})
	if err != nil {
		return ExecResult{}, err
	}
	if o.Helper != "" {
		command.waitThrough(o.Helper)
	}
	e := &execution{Exec: command, options: o, mark: r.newMark(), exited: make(chan struct{})}
	defer func() { err = errors.Join(err, e.Close()) }()
	if err := e.start(); err != nil {
		return ExecResult{}, fmt.Errorf("exec in container %s: %w", id, err)
	}
	waitCtx := ctx
	if o.Timeout > 0 {
		var cancel context.CancelFunc
		waitCtx, cancel = context.WithTimeout(ctx, o.Timeout)
		defer cancel()
	}
	select {
	case <-e.exited:
		e.finishOutput(drainGrace)
		return e.result(r, id)
	case <-waitCtx.Done():
	}
	killErr := e.kill()
	e.finishOutput(0)
	err = fmt.Errorf("exec in container %s: %w", id, errors.Join(waitCtx.Err(), killErr))
	switch {
	case o.Timeout > 0 && ctx.Err() == nil:
		err = fmt.Errorf("exec in container %s: command did not end within %s: %w", id, o.Timeout, errors.Join(waitCtx.Err(), killErr))
		fallthrough
	case errors.Is(waitCtx.Err(), context.DeadlineExceeded):
		err = errkind.Wrap(errkind.Timeout, err)
	}
	return ExecResult{}, err
}

// start starts the runtime, marked, and the reading of its output.
func (e *execution) start() error {
	var outW, errW *os.File
	var err error
	if e.stdout, outW, err = newCapture(e.options.MaxOutput); err != nil {
		return err
	}
	if e.stderr, errW, err = newCapture(e.options.MaxOutput); err != nil {
		return errors.Join(err, e.stdout.r.Close(), outW.Close())
	}
	e.Cmd.Stdout, e.Cmd.Stderr = outW, errW
	e.Cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	err = errors.Join(e.startMarked(), outW.Close(), errW.Close())
	if err != nil {
		return errors.Join(err, e.stdout.r.Close(), e.stderr.r.Close())
	}
	go e.stdout.read()
	go e.stderr.read()
	if p, ok := readProc(e.Cmd.Process.Pid); ok {
		e.started = p.start
	}
	go func() {
		e.waitErr = e.Cmd.Wait()
		close(e.exited)
	}()
	return nil
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

// finishOutput ends the reading of both outputs, at the latest after grace.
func (e *execution) finishOutput(grace time.Duration) {
	e.stdout.finish(grace)
	e.stderr.finish(grace)
}

// result is called when the runtime has ended by itself.
func (e *execution) result(r *Runtime, id string) (ExecResult, error) {
	var exit *exec.ExitError
	if e.waitErr != nil && !errors.As(e.waitErr, &exit) {
		return ExecResult{}, fmt.Errorf("exec in container %s: %w", id, e.waitErr)
	}
	status, _ := e.Cmd.ProcessState.Sys().(syscall.WaitStatus)
	if e.processID() == 0 || status.Signaled() {
		// The runtime itself failed: it has started no process, or left its own.
		output := &tail{max: maxStderr}
		_, _ = output.Write(e.stderr.bytes()) // never fails
		failure := &CommandError{
			Runtime: r.path, Command: "exec " + id, ExitStatus: max(status.ExitStatus(), 0), Output: output.String(),
		}
		if status.Signaled() {
			failure.Signal = status.Signal()
		}
		return ExecResult{}, failure
	}
	return ExecResult{
		Stdout: e.stdout.bytes(), Stderr: e.stderr.bytes(),
		ExitCode:  status.ExitStatus(),
		Truncated: e.stdout.truncated || e.stderr.truncated,
	}, nil
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
