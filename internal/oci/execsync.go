package oci

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

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
	// UserNS is the container's user namespace; nil is the node's.
	UserNS *UserNamespace
	// OOMScoreAdj is as in ExecOptions.
	OOMScoreAdj *int
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

// execSync is one ExecSync under way.
type execSync struct {
	*execution
	stdout, stderr *capture
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
	command, err := r.ExecCommand(context.Background(), id, ExecOptions{Args: o.Args, Config: o.Config, Dir: o.Dir, OOMScoreAdj: o.OOMScoreAdj})
	if err != nil {
		return ExecResult{}, err
	}
	if o.Helper != "" {
		command.waitThrough(o.Helper)
	}
	e := &execSync{execution: &execution{
		Exec: command, cgroupProcs: o.CgroupProcs, owner: o.UserNS, mark: r.newMark(), exited: make(chan struct{}),
	}}
	defer func() { err = errors.Join(err, e.Close()) }()
	if err := e.start(o.MaxOutput); err != nil {
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

// start starts the runtime and the reading of its output.
func (e *execSync) start(maxOutput int) (err error) {
	var outW, errW *os.File
	if e.stdout, outW, err = newCapture(maxOutput); err != nil {
		return err
	}
	e.theirs = append(e.theirs, outW)
	if e.stderr, errW, err = newCapture(maxOutput); err != nil {
		return errors.Join(err, e.stdout.r.Close(), outW.Close())
	}
	e.theirs = append(e.theirs, errW)
	e.outputs = []string{e.stdout.name, e.stderr.name}
	e.Cmd.Stdout, e.Cmd.Stderr = outW, errW
	if err := e.launch(); err != nil {
		return errors.Join(err, e.stdout.r.Close(), e.stderr.r.Close())
	}
	go e.stdout.read()
	go e.stderr.read()
	return nil
}

// finishOutput ends the reading of both outputs, at the latest after grace.
func (e *execSync) finishOutput(grace time.Duration) {
	e.stdout.finish(grace)
	e.stderr.finish(grace)
}

// result is called when the runtime has ended by itself.
func (e *execSync) result(r *Runtime, id string) (ExecResult, error) {
	words := &tail{max: maxStderr}
	_, _ = words.Write(e.stderr.bytes()) // never fails
	code, err := e.outcome(r, id, words)
	if err != nil {
		return ExecResult{}, err
	}
	return ExecResult{
		Stdout: e.stdout.bytes(), Stderr: e.stderr.bytes(),
		ExitCode:  code,
		Truncated: e.stdout.truncated || e.stderr.truncated,
	}, nil
}
