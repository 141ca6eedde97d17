package container

import (
	"context"
	"fmt"
	"time"

	"github.com/gantry-cri/gantry/internal/errkind"
	"github.com/gantry-cri/gantry/internal/events"
)

// start runs RUNTIME start. The phase is written before (so that recovery
// asks the runtime whether it happened) and after.
func (c *Container) start(ctx context.Context) error {
	c.op.Lock()
	defer c.op.Unlock()
	before := c.Status()
	if before.State == Running {
		return nil // a retry whose first call was answered too late
	}
	now := time.Now()
	after, err := before.started(now)
	if err != nil {
		return fmt.Errorf("start container %s: %w", c.Record.ID, err)
	}
	if err := c.writePhase(c.phase(func(p *phase) { p.Starting, p.StartedAt = true, now })); err != nil {
		return err
	}
	c.publish(func(s Status) Status { s.StartedAt = now; return s }) // an exit may come before the start returns
	waiting := programOf(before.PID)
	c.waiting.Store(&waiting)
	c.hold()
	if err := c.callRuntimeStart(ctx); err != nil {
		return c.startFailed(err)
	}
	if err := c.writePhase(c.phase(func(*phase) {})); err != nil {
		c.log.Error("state not recorded; recovery will ask the runtime", "err", err)
	}
	c.publishAs(events.Started, func(s Status) Status {
		if s.State == Exited {
			return s
		}
		return after
	})
	return nil
}

func (c *Container) callRuntimeStart(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.settings().RuntimeTimeout)
	defer cancel()
	if c.pod.Runtime.Sandboxed() {
		return c.pod.Runtime.StartStandIn(ctx, string(c.Record.ID), c.Dir())
	}
	return c.pod.Runtime.Start(ctx, string(c.Record.ID))
}

// startFailed ends a container that could not be started: CRI knows no way
// back to created. The kubelet reads the reason from its status.
func (c *Container) startFailed(cause error) error {
	err := fmt.Errorf("start container %s: %w", c.Record.ID, cause)
	c.publish(func(s Status) Status {
		s.StartedAt, s.Reason, s.Message = time.Time{}, reasonStartError, cause.Error()
		return s
	})
	if perr := c.writePhase(c.phase(func(*phase) {})); perr != nil {
		c.log.Error("state not recorded", "err", perr)
	}
	c.release()
	if kerr := c.killAll(); kerr != nil {
		c.log.Error("kill after a failed start", "err", kerr)
	}
	return err
}

// publish replaces the status by what change makes of it.
func (c *Container) publish(change func(Status) Status) {
	c.mu.Lock()
	next := change(c.Status())
	c.status.Store(&next)
	c.mu.Unlock()
}

// requireRunning returns an error of kind Precondition unless c runs.
func (c *Container) requireRunning() error {
	if st := c.Status(); st.State != Running {
		return errkind.Errorf(errkind.Precondition, "container %s is %s, not running", c.Record.ID, st.State)
	}
	return nil
}
