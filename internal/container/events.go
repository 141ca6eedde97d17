package container

import "github.com/gantry-cri/gantry/internal/events"

// Events come in the order of the transitions that they tell of, and after
// them: Created, Started, Stopped, Deleted. An init may end before RUNTIME
// create or start has returned; its end is told once their outcome is known.

// tellLocked hands an event to whoever listens. It does not wait.
func (c *Container) tellLocked(kind events.Kind) { c.pod.Tell(kind, c.Record.ID) }

// tellExitLocked tells the exit now, or when releaseLocked comes.
func (c *Container) tellExitLocked() {
	if c.holding {
		c.heldExit = true
		return
	}
	c.tellLocked(events.Stopped)
}

func (c *Container) releaseLocked() {
	c.holding = false
	if c.heldExit {
		c.heldExit = false
		c.tellLocked(events.Stopped)
	}
}

// hold has an exit wait for release.
func (c *Container) hold() {
	c.order.Lock()
	defer c.order.Unlock()
	c.holding = true
}

func (c *Container) release() {
	c.order.Lock()
	defer c.order.Unlock()
	c.releaseLocked()
}

// publishAs is publish with the event of the transition. It ends a hold.
func (c *Container) publishAs(kind events.Kind, change func(Status) Status) {
	c.order.Lock()
	defer c.order.Unlock()
	c.publish(change)
	c.tellLocked(kind)
	c.releaseLocked()
}

// tellUnheardExit tells an exit that recovery has found. The daemon that ran
// then, if any did, may not have got to it.
func (c *Container) tellUnheardExit() {
	c.order.Lock()
	defer c.order.Unlock()
	c.tellLocked(events.Stopped)
}

// tellDeleted tells that the container is in no list any more.
func (c *Container) tellDeleted() {
	c.order.Lock()
	defer c.order.Unlock()
	c.tellLocked(events.Deleted)
}
