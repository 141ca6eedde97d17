package sandbox

import (
	"context"
	"os"

	"github.com/gantry-cri/gantry/internal/cgroup"
	"github.com/gantry-cri/gantry/internal/systemd"
)

// chooseCgroup decides where a new pod's cgroups are: in the parent that the
// request names, which is the kubelet's, or else in one of the pod's own.
func (m *Manager) chooseCgroup(rec *Record, asked string) (err error) {
	rec.Cgroups = m.opts.Cgroups
	if asked != "" {
		if rec.CgroupParent, err = rec.Cgroups.Parent(asked); err != nil {
			return invalid("config.linux.cgroup_parent: %w", err)
		}
		return nil
	}
	rec.OwnsCgroup = true
	rec.CgroupParent, err = rec.Cgroups.Default(m.opts.CgroupParent, string(rec.ID))
	return err
}

// makeCgroup makes the pod's cgroup, and with cgroupfs the monitor's in it.
func (m *Manager) makeCgroup(ctx context.Context, p *Pod) error {
	if p.Record.Cgroups != cgroup.Systemd {
		return cgroup.Create(m.monitorNode, p.monitorCgroup())
	}
	if m.isThere(p.Record.CgroupParent) {
		return nil // the kubelet made the slice
	}
	return m.opts.Systemd.StartSlice(ctx, cgroup.Unit(p.Record.CgroupParent))
}

// isThere reports whether a slice is, in each hierarchy that systemd works with.
func (m *Manager) isThere(slice string) bool {
	node := m.opts.Node
	if dir, ok := node.CgroupV1["name=systemd"]; ok {
		node.CgroupV1, node.CgroupUnified = map[string]string{"name=systemd": dir}, ""
	}
	for _, dir := range cgroup.Paths(node, slice) {
		if _, err := os.Stat(dir); err != nil {
			return false
		}
	}
	return true
}

// placeMonitor has systemd put the monitor into a scope; with cgroupfs the
// monitor moves itself.
func (m *Manager) placeMonitor(ctx context.Context, p *Pod, pid int) error {
	if p.Record.Cgroups != cgroup.Systemd {
		return nil
	}
	return m.opts.Systemd.StartScope(ctx, systemd.Scope{
		Name:        cgroup.Unit(p.monitorCgroup()),
		Slice:       cgroup.Unit(p.Record.CgroupParent),
		PID:         pid,
		Description: "Gantry: monitor of pod " + string(p.Record.ID),
	})
}

// removeCgroup removes the pod's cgroup, if Gantry made it. A slice of which
// systemd does not let go holds nothing any more: that does not keep the pod.
func (m *Manager) removeCgroup(ctx context.Context, p *Pod) error {
	if !p.Record.OwnsCgroup {
		return nil
	}
	if p.Record.Cgroups == cgroup.Systemd {
		if err := m.opts.Systemd.Stop(ctx, cgroup.Unit(p.Record.CgroupParent)); err != nil {
			p.log.Warn("the pod's slice, which is empty, is left to systemd", "err", err)
		}
	}
	return cgroup.Remove(ctx, m.opts.Node, p.Record.CgroupParent)
}
