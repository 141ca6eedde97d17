package container

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-cri/gantry/internal/cgroup"
	"github.com/gantry-cri/gantry/internal/errkind"
	"github.com/gantry-cri/gantry/internal/monitor"
)

// killWait is how long after SIGKILL a container may take to end before it is
// reported as stuck (a process in uninterruptible sleep).
const killWait = 10 * time.Second

// Stop ends a container: its stop signal, then SIGKILL after grace (at once
// for zero). It is idempotent. Stops may overlap: the one whose grace ends
// first kills. When ctx ends the stop goes on and the error is of kind
// errkind.Timeout.
func (m *Manager) Stop(ctx context.Context, c *Container, grace time.Duration) error {
	if c.Status().State == Exited {
		return nil
	}
	done := make(chan error, 1)
	go func() { done <- c.stop(grace) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return errkind.Errorf(errkind.Timeout, "stop container %s: still under way: %w", c.Record.ID, context.Cause(ctx))
	}
}

func (c *Container) stop(grace time.Duration) error {
	if grace > 0 && c.Status().State == Running {
		deadline := time.Now().Add(grace)
		if err := c.askToEnd(deadline); err != nil {
			c.log.Warn("stop signal not delivered; killing at the end of the grace period", "err", err)
		}
		if c.waitGone(time.Until(deadline)) {
			return nil
		}
	}
	return c.kill()
}

// Pauses between stop signals to an init that ignores them: doubling.
const (
	firstSignalPause = 20 * time.Millisecond
	lastSignalPause  = time.Second
)

// askToEnd sends the stop signal, unless an earlier Stop did, and again until
// the init heeds it, the container has exited or the deadline passes. A
// container that was started just now can lose it: the kernel drops a signal to
// the init of a PID namespace that has no handler yet, and a runtime of several
// threads can take it in the moment in which it becomes the container's program.
func (c *Container) askToEnd(deadline time.Time) error {
	if c.stopSent.Swap(true) {
		return nil
	}
	pid := c.Status().PID
	for pause := firstSignalPause; ; pause = min(2*pause, lastSignalPause) {
		before := attentionOf(pid)
		if err := c.signal(c.Record.StopSig); err != nil {
			return err
		}
		if !c.pod.Runtime.SharesKernel() || before == attentionOf(pid) && c.heeds(before) {
			return nil
		}
		if c.waitGone(min(pause, time.Until(deadline))) || !time.Now().Before(deadline) {
			return nil
		}
	}
}

// heeds reports whether an init of that attention is the container's program
// and gets the stop signal.
func (c *Container) heeds(a attention) bool {
	waiting := c.waiting.Load()
	return a.gets(c.Record.StopSig) && (waiting == nil || a.program != *waiting)
}

// kill sends SIGKILL and waits for the exit, at most killWait, then ends the
// whole cgroup and waits as long again.
func (c *Container) kill() error {
	if c.pod.Runtime.Sandboxed() {
		return c.killSandboxed()
	}
	err := c.signal(unix.SIGKILL)
	if thawErr := cgroup.Thaw(c.env.Node, c.Record.Cgroup); thawErr != nil {
		c.log.Warn("a container that is killed may be frozen", "err", thawErr)
	}
	if err == nil && c.waitGone(killWait) {
		return nil
	}
	err = errors.Join(err, c.killAll())
	if c.waitGone(killWait) {
		return nil
	}
	return errors.Join(
		errkind.Errorf(errkind.Timeout, "kill container %s: process %d is still there %s after SIGKILL (uninterruptible sleep?)",
			c.Record.ID, c.Status().PID, 2*killWait), err)
}

// exitTold is how long an exit that the runtime knows of may take to be told.
const exitTold = 2 * time.Second

// killSandboxed is kill for a container in its pod's sandbox, which may fail to
// end it, or not have started it.
func (c *Container) killSandboxed() error {
	var err error
	if c.Status().State != Created {
		wait := killWait
		if err = c.signal(unix.SIGKILL); err != nil {
			wait = exitTold // it has ended just now, or the sandbox has
		}
		if c.waitGone(wait) {
			return nil
		}
	}
	err = errors.Join(err, c.killAll())
	if c.waitGone(killWait) {
		return nil
	}
	return errors.Join(errkind.Errorf(errkind.Timeout, "kill container %s: its end is not told", c.Record.ID), err)
}

// signal delivers sig to the container's init: through its parent, the
// monitor, where the init is a process of this node; through the runtime where
// it may not be (a sandbox of its own kernel).
func (c *Container) signal(sig unix.Signal) error {
	ctx, cancel := context.WithTimeout(context.Background(), killWait)
	defer cancel()
	var err error
	if c.pod.Runtime.SharesKernel() {
		var mon *monitor.Client
		if mon, err = c.pod.Monitor(); err == nil {
			err = mon.Kill(ctx, c.Record.ID, sig)
		}
	} else {
		err = c.pod.Runtime.Kill(ctx, string(c.Record.ID), sig, false)
	}
	if err == nil || errors.Is(err, monitor.ErrExited) {
		return nil
	}
	return fmt.Errorf("send signal %d to container %s: %w", sig, c.Record.ID, err)
}

func (c *Container) waitGone(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-c.gone:
		return true
	case <-timer.C:
		return false
	}
}
