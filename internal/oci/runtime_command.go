package oci

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-cri/gantry/internal/errkind"
)

const (
	maxStdout = 16 << 20 // of a command; list with thousands of containers stays far below
	maxStderr = 4 << 10
	// reapGrace is how long a killed command may take to die. One that hangs
	// in the kernel is given up then.
	reapGrace = time.Second
)

// command runs one command of the runtime and returns its standard output. The
// errors are those of run.
func (r *Runtime) command(ctx context.Context, args ...string) ([]byte, error) {
	return r.run(ctx, r.argv(args...), args)
}

// run runs argv, the command line of the command args, and returns its standard
// output. The error is a *CommandError when the runtime says that it failed; its
// kind is Timeout when the deadline (commandTimeout without one) passed, and the
// command and all that it started have been killed then.
func (r *Runtime) run(ctx context.Context, argv, args []string) ([]byte, error) {
	if r.ended.Load() {
		return nil, fmt.Errorf("%s: runtime %s is not used any more", args[0], r.handler)
	}
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = r.env
	stdout, stderr := &bounded{max: maxStdout}, &tail{max: maxStderr}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = reapGrace
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s: %w", args[0], err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	select {
	case err := <-exited:
		return r.result(args, cmd, err, stdout, stderr)
	case <-ctx.Done():
	}
	err := unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
	if errors.Is(err, unix.ESRCH) {
		err = nil
	}
	select {
	case <-exited:
	case <-time.After(reapGrace):
		err = errors.Join(err, fmt.Errorf("process %d does not die", cmd.Process.Pid))
	}
	return nil, errors.Join(r.interrupted(ctx, args), err)
}

// interrupted is the error of a command that was killed because ctx ended.
func (r *Runtime) interrupted(ctx context.Context, args []string) error {
	err := fmt.Errorf("%s %s: %w", r.Path(), strings.Join(args, " "), ctx.Err())
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return errkind.Wrap(errkind.Timeout, err)
	}
	return err
}

func (r *Runtime) result(args []string, cmd *exec.Cmd, err error, stdout *bounded, stderr *tail) ([]byte, error) {
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		status, _ := exit.Sys().(syscall.WaitStatus)
		e := &CommandError{
			Runtime: r.Path(), Command: strings.Join(args, " "), ExitStatus: exit.ExitCode(), Output: stderr.String(),
		}
		if status.Signaled() {
			e.Signal = status.Signal()
		}
		return nil, e
	case err != nil && !errors.Is(err, exec.ErrWaitDelay):
		return nil, fmt.Errorf("%s: %w", args[0], err)
	case stdout.over:
		return nil, fmt.Errorf("%s: more than %d bytes of output", args[0], maxStdout)
	}
	return stdout.Bytes(), nil
}

// bounded keeps the first max bytes that are written to it and takes the rest
// without keeping it.
type bounded struct {
	bytes.Buffer
	max  int
	over bool
}

func (b *bounded) Write(p []byte) (int, error) {
	n := len(p)
	if room := b.max - b.Len(); n > room {
		p, b.over = p[:room], true
	}
	b.Buffer.Write(p)
	return n, nil
}

// tail keeps the last max bytes that are written to it.
type tail struct {
	buf []byte
	max int
}

func (t *tail) Write(p []byte) (int, error) {
	t.buf = append(t.buf, p...)
	if over := len(t.buf) - t.max; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	return len(p), nil
}

// String is the tail as one valid UTF-8 text without surrounding space.
func (t *tail) String() string {
	return strings.TrimSpace(strings.ToValidUTF8(string(t.buf), "?"))
}
