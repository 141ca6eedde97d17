package check

import (
	"context"
	"strings"

	"github.com/gantry-cri/gantry/internal/cgroup"
)

func cgroupVersion(_ context.Context, n *Node) Result {
	switch f := n.Facts; {
	case n.FactsErr != nil:
		return bad("mount the control groups: mount -t cgroup2 cgroup2 /sys/fs/cgroup, or use an init that does", "can't be looked at: %v", n.FactsErr)
	case f.CgroupV2:
		return ok("version 2")
	case len(f.CgroupControllers) == 0:
		return bad("mount -t cgroup2 cgroup2 /sys/fs/cgroup", "no control groups are mounted")
	}
	return warning("boot with systemd.unified_cgroup_hierarchy=1, or set failCgroupV1: false for the kubelet",
		"version 1: it works, but the kubelet of Kubernetes 1.35 and newer refuses it by default")
}

// wanted are the controllers by their names on version 1 and 2, and whether the
// kubelet and the runtimes can't do without them.
var wanted = []struct {
	v1, v2 string
	must   bool
}{
	{"cpu", "cpu", true}, {"memory", "memory", true}, {"pids", "pids", true},
	{"cpuset", "cpuset", false}, {"blkio", "io", false}, {"hugetlb", "hugetlb", false},
}

func cgroupControllers(_ context.Context, n *Node) Result {
	if n.FactsErr != nil {
		return bad("see cgroup-version", "can't be looked at")
	}
	var must, may, there []string
	for _, w := range wanted {
		name := w.v1
		if n.Facts.CgroupV2 {
			name = w.v2
		}
		switch {
		case n.Facts.CgroupControllers[name]:
			there = append(there, name)
		case w.must:
			must = append(must, name)
		default:
			may = append(may, name)
		}
	}
	const fix = "have the kernel offer them (cgroup_enable=memory, cgroup_disable= on its command line), and, in a virtual machine or container, have them delegated"
	if len(must) > 0 {
		return bad(fix, "missing: %s", strings.Join(append(must, may...), ", "))
	}
	if len(may) > 0 {
		return warning(fix, "missing: %s; their limits have no effect, and some runtimes and kubelets refuse to work", strings.Join(may, ", "))
	}
	return ok("%s", strings.Join(there, ", "))
}

func cgroupManager(ctx context.Context, n *Node) Result {
	m := cgroup.Manager(n.Config.CgroupManager)
	if _, err := m.Default(n.Config.CgroupParent, "pod"); err != nil {
		return bad("set another cgroup_parent", "cgroup_parent: %v", err)
	}
	booted := n.exists("/run/systemd/system")
	switch {
	case m != cgroup.Systemd && booted:
		return ok("cgroupfs, beside systemd; kubeadm's default is systemd, and both have to agree")
	case m != cgroup.Systemd:
		return ok("cgroupfs")
	case !booted:
		return bad(`cgroup_manager = "cgroupfs"`, "it is systemd, but systemd is not this node's service manager")
	}
	if err := n.Systemd(ctx); err != nil {
		return bad("systemctl start dbus", "it is systemd, which can't be reached over D-Bus: %v", err)
	}
	return ok("systemd")
}
