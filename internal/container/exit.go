package container

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-cri/gantry/internal/cgroup"
	"github.com/gantry-cri/gantry/internal/monitor"
)

// markExited publishes an exit, tells it, and begins the clean-up after it. Only
// the first call does anything.
func (c *Container) markExited(change func(Status) Status) {
	c.order.Lock()
	defer c.order.Unlock()
	c.mu.Lock()
	if c.Status().State == Exited {
		c.mu.Unlock()
		return
	}
	next := change(c.Status())
	c.status.Store(&next)
	c.mu.Unlock()
	c.tellExitLocked()
	close(c.gone)
	go c.cleanUpInBackground()
}

// settleWithoutMonitor decides the state of a container whose monitor is
// gone: what the exit record says, or that its exit is unknown.
func (c *Container) settleWithoutMonitor(now time.Time) {
	exit, known, err := monitor.ReadExit(filepath.Join(c.Dir(), exitFile))
	if err != nil {
		c.log.Error("exit record unreadable", "err", err)
	}
	if known {
		c.markExited(func(s Status) Status { return s.exited(exit) })
		return
	}
	if err := c.killAll(); err != nil {
		c.log.Error("kill a container without monitor", "err", err)
	}
	c.markExited(func(s Status) Status { return s.lost(now) })
}

func (c *Container) cleanUpInBackground() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*c.settings().RuntimeTimeout)
	defer cancel()
	c.op.Lock()
	defer c.op.Unlock()
	if err := c.cleanUp(ctx); err != nil {
		c.log.Warn("clean up after the exit; Remove tries again", "err", err)
	}
}

// cleanUp ends what the container's init left running (a container without a
// PID namespace of its own can), and lets the runtime and the monitor forget
// it. It needs op held and is idempotent.
func (c *Container) cleanUp(ctx context.Context) error {
	select {
	case <-c.cleaned:
		return nil
	default:
	}
	if err := c.killCgroup(ctx); err != nil {
		return err
	}
	if err := c.pod.Runtime.Delete(ctx, string(c.Record.ID), true); err != nil {
		return fmt.Errorf("delete container %s: %w", c.Record.ID, err)
	}
	if err := cgroup.Remove(ctx, c.env.Node, c.Record.Cgroup); err != nil {
		return fmt.Errorf("container %s: %w", c.Record.ID, err)
	}
	if mon, err := c.pod.Monitor(); err == nil {
		if err := mon.Forget(ctx, c.Record.ID); err != nil && !errors.Is(err, monitor.ErrDisconnected) {
			return fmt.Errorf("container %s: %w", c.Record.ID, err)
		}
	}
	close(c.cleaned)
	if c.visible() {
		if err := c.writePhase(c.phase(func(p *phase) { p.Cleaned = true })); err != nil {
			c.log.Error("state not recorded; the next daemon cleans up again", "err", err)
		}
	}
	return nil
}

// killCgroup ends every process of the container's cgroup.
func (c *Container) killCgroup(ctx context.Context) error {
	if err := cgroup.KillAll(ctx, c.env.Node, c.Record.Cgroup); err != nil {
		return fmt.Errorf("kill the processes of container %s: %w", c.Record.ID, err)
	}
	return nil
}

// killAll is killCgroup with a deadline of its own. A container in its pod's
// sandbox is in no cgroup: what stands in for it is killed, so that it counts as
// exited, and the clean-up has the sandbox delete it.
func (c *Container) killAll() error {
	ctx, cancel := context.WithTimeout(context.Background(), killWait)
	defer cancel()
	err := c.killCgroup(ctx)
	if !c.pod.Runtime.Sandboxed() {
		return err
	}
	mon, monErr := c.pod.Monitor()
	if monErr != nil {
		return err // without it nobody would learn of the end
	}
	if monErr = mon.Kill(ctx, c.Record.ID, unix.SIGKILL); errors.Is(monErr, monitor.ErrExited) {
		monErr = nil
	}
	return errors.Join(err, monErr)
}
