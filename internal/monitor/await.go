package monitor

import (
	"context"
	"slices"
	"time"

	"github.com/gantry-cri/gantry/internal/id"
)

// awaitPause is how often AwaitCreate looks. It is for recovery after a crash
// in the middle of a create, which is too rare for an event of the protocol.
const awaitPause = 20 * time.Millisecond

// AwaitCreate returns once no create of this container is under way, whatever
// became of it.
func (c *Client) AwaitCreate(ctx context.Context, ctr id.Container) error {
	tick := time.NewTicker(awaitPause)
	defer tick.Stop()
	for {
		infos, err := c.Containers(ctx)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(infos, func(i ContainerInfo) bool { return i.ID == ctr && i.State == Creating }) {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
