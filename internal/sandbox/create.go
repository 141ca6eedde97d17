package sandbox

import (
	"context"
	"fmt"

	"github.com/gantry-cri/gantry/internal/container"
	"github.com/gantry-cri/gantry/internal/errkind"
	"github.com/gantry-cri/gantry/internal/flight"
	"github.com/gantry-cri/gantry/internal/id"
)

// CreateContainer creates a container in the pod that podID names. A call with
// the identity (pod, name, attempt) of one in flight, or of a container that
// was created from the same configuration and has not ended, returns that one.
func (m *Manager) CreateContainer(ctx context.Context, podID string, req container.CreateRequest) (id.Container, error) {
	p, err := m.Find(podID)
	if err != nil {
		return "", err
	}
	md := req.Config.GetMetadata()
	key := fmt.Sprintf("create container %s (attempt %d) in pod %s", md.GetName(), md.GetAttempt(), p.Record.ID)
	return flight.Do(ctx, &m.ops, key, m.limit(), func(ctx context.Context) (id.Container, error) {
		if err := m.opts.Containers.LabelVolumes(ctx, &p.host, req.Config); err != nil {
			return "", err
		}
		p.op.RLock()
		defer p.op.RUnlock()
		if st := p.Status(); st.State != Ready {
			return "", errkind.Errorf(errkind.Precondition, "pod %s is %s, not ready%s", p.Record.ID, st.State, because(st.Reason))
		}
		c, err := m.opts.Containers.Create(ctx, &p.host, req)
		if err != nil {
			return "", err
		}
		return c.ID(), nil
	})
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + reason
}
