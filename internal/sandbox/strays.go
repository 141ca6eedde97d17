package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/gantry-cri/gantry/internal/cgroup"
	"github.com/gantry-cri/gantry/internal/id"
)

// unknown are the pod's containers whose records can't be read: they are in no
// list, and only their directories tell of them.
func (m *Manager) unknown(p *Pod) []id.Container {
	known := make(map[string]bool)
	for _, c := range m.opts.Containers.OfPod(p.Record.ID) {
		known[string(c.ID())] = true
	}
	entries, err := os.ReadDir(p.containersDir())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		p.log.Error("containers without a record can't be looked for", "err", err)
	}
	var out []id.Container
	for _, e := range entries {
		if id.Valid(e.Name()) && !known[e.Name()] {
			out = append(out, id.Container(e.Name()))
		}
	}
	return out
}

// endUnknown ends the containers of the pod that are in no list.
func (m *Manager) endUnknown(ctx context.Context, p *Pod) error {
	var errs []error
	for _, ctr := range m.unknown(p) {
		if err := m.endOne(ctx, p, ctr); err != nil {
			errs = append(errs, fmt.Errorf("end container %s, which has no record: %w", ctr, err))
		}
	}
	return errors.Join(errs...)
}

func (m *Manager) endOne(ctx context.Context, p *Pod, ctr id.Container) error {
	path := p.Record.Cgroups.Child(p.Record.CgroupParent, string(ctr))
	if err := cgroup.KillAll(ctx, m.opts.Node, path); err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, m.settings.Load().RuntimeTimeout)
	defer cancel()
	if err := p.runtime.Delete(limited, string(ctr), true); err != nil {
		return err
	}
	return cgroup.Remove(ctx, m.opts.Node, path)
}

// endStrays ends what somebody else has put into the pod's cgroup, once all that
// is the pod's has ended. A parent that the request named may be others' too: it
// is theirs who made it.
func (m *Manager) endStrays(ctx context.Context, p *Pod) error {
	if !p.Record.OwnsCgroup {
		return nil
	}
	if err := cgroup.KillAll(ctx, m.opts.Node, p.Record.CgroupParent); err != nil {
		return fmt.Errorf("end strays: %w", err)
	}
	return nil
}
