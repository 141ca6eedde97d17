package sandbox

// What package stats measures of a pod.

// Cgroup is the parent of all the pod's cgroups. It may be another pod's too,
// where the request named it.
func (p *Pod) Cgroup() string { return p.Record.CgroupParent }

// Cgroups are the pod's own that are no container's: the pause container's
// first.
func (p *Pod) Cgroups() []string { return []string{p.pauseCgroup(), p.monitorCgroup()} }

// NetNS is where the pod's network namespace is pinned; "" for the node's.
func (p *Pod) NetNS() string {
	if p.HostNetwork() {
		return ""
	}
	return p.netns()
}
