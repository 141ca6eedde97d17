package container

import (
	"context"
	"fmt"
	"os"

	"github.com/gantry-cri/gantry/internal/errkind"
)

// remove ends the container if it runs, and removes all that Create made. It
// is idempotent; the record goes last, so that a crash in between leaves
// something that recovery can find.
func (c *Container) remove(ctx context.Context) error {
	if c.Status().State != Exited {
		if err := c.kill(); err != nil {
			return fmt.Errorf("remove: %w", err)
		}
	}
	c.op.Lock()
	defer c.op.Unlock()
	if err := c.cleanUp(ctx); err != nil {
		return fmt.Errorf("remove: %w", err)
	}
	if err := c.env.Storage.RemoveRootFS(c.Record.ID); err != nil {
		return fmt.Errorf("remove container %s: %w", c.Record.ID, err)
	}
	if err := os.RemoveAll(c.Dir()); err != nil {
		return errkind.Errorf(errkind.Other, "remove container %s: %w", c.Record.ID, err)
	}
	return nil
}

// WaitCleaned returns once nothing of an exited container runs and the runtime
// has forgotten it; it does that itself where the background has failed.
func (c *Container) WaitCleaned(ctx context.Context) error {
	c.op.Lock()
	defer c.op.Unlock()
	return c.cleanUp(ctx)
}
