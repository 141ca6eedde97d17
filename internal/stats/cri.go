package stats

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Container reports one container. One whose cgroup is gone, as it is when the
// container has exited, has no figures but those of its writable layer.
func (c *Collector) Container(ctr *Container) *runtimeapi.ContainerStats {
	c.wake(false)
	if !ctr.Exited {
		if st, ok := c.container(ctr, &scratch{}); ok {
			return st
		}
	}
	return &runtimeapi.ContainerStats{Attributes: ctr.Attributes, WritableLayer: c.layer(ctr)}
}

// Containers reports those that are still there, in the order of the argument.
func (c *Collector) Containers(list []Container) []*runtimeapi.ContainerStats {
	c.wake(false)
	return collect(len(list), func(i int, s *scratch) (*runtimeapi.ContainerStats, bool) {
		return c.container(&list[i], s)
	})
}

// Pod reports one pod with its containers. A pod of which nothing is left has
// no figures.
func (c *Collector) Pod(p *Pod) *runtimeapi.PodSandboxStats {
	c.wake(false)
	return c.pod(p, &scratch{})
}

// Pods reports pods, in the order of the argument.
func (c *Collector) Pods(list []Pod) []*runtimeapi.PodSandboxStats {
	c.wake(false)
	return collect(len(list), func(i int, s *scratch) (*runtimeapi.PodSandboxStats, bool) {
		return c.pod(&list[i], s), true
	})
}

// collect calls do for 0 to n-1 on every processor at once and returns, in
// order, what was there.
func collect[T any](n int, do func(i int, s *scratch) (*T, bool)) []*T {
	found := make([]*T, n)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), (n+7)/8) {
		wg.Go(func() {
			s := &scratch{}
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				if v, ok := do(i, s); ok {
					found[i] = v
				}
			}
		})
	}
	wg.Wait()
	out := found[:0]
	for _, v := range found {
		if v != nil {
			out = append(out, v)
		}
	}
	return out
}

func (c *Collector) container(ctr *Container, s *scratch) (*runtimeapi.ContainerStats, bool) {
	u, ok := c.containerUsage(ctr, s)
	if !ok {
		return nil, false
	}
	return &runtimeapi.ContainerStats{
		Attributes:    ctr.Attributes,
		Cpu:           u.cpuCRI(),
		Memory:        u.memoryCRI(),
		Swap:          u.swapCRI(),
		Io:            u.ioCRI(),
		WritableLayer: c.layer(ctr),
	}, true
}

func (c *Collector) pod(p *Pod, s *scratch) *runtimeapi.PodSandboxStats {
	linux := &runtimeapi.LinuxPodSandboxStats{}
	for i := range p.Containers {
		if st, ok := c.container(&p.Containers[i], s); ok {
			linux.Containers = append(linux.Containers, st)
		}
	}
	if u, ok := c.podUsage(p, s); ok {
		linux.Cpu, linux.Memory, linux.Io = u.cpuCRI(), u.memoryCRI(), u.ioCRI()
		linux.Process = c.processes(p, s)
	}
	if found, ok := c.network(p, s); ok {
		linux.Network = c.networkCRI(found)
	}
	return &runtimeapi.PodSandboxStats{Attributes: p.Attributes, Linux: linux}
}

// podUsage is that of the pod's own cgroup, or the sum of its parts.
func (c *Collector) podUsage(p *Pod, s *scratch) (usage, bool) {
	if !p.Shared {
		return c.usage(p.Cgroup, s)
	}
	sum, found := usage{}, false
	for _, path := range p.members() {
		u, ok := c.usage(path, s)
		if !ok {
			continue
		}
		if !found {
			u.pressure = [3]*pressure{}
			if u.memory != nil {
				u.memory.limited, u.memory.swapLimited = false, false
			}
			sum, found = u, true
			continue
		}
		sum.add(u)
	}
	return sum, found
}

// members are the cgroups of everything of the pod.
func (p *Pod) members() []string {
	paths := append(make([]string, 0, len(p.Parts)+len(p.Containers)), p.Parts...)
	for i := range p.Containers {
		paths = append(paths, p.Containers[i].Cgroup)
	}
	return paths
}

func (u *usage) add(o usage) {
	if u.cpu != nil && o.cpu != nil {
		u.cpu.usage += o.cpu.usage
		u.cpu.nanoCores += o.cpu.nanoCores
		u.cpu.hasRate = u.cpu.hasRate && o.cpu.hasRate
	}
	if u.memory != nil && o.memory != nil {
		u.memory.add(o.memory)
	}
}

// processes counts those of the pause container and of the containers. The
// kernel counts tasks cheaply, and makes a sorted list to show processes: where
// there are no more tasks than containers, each has one process.
func (c *Collector) processes(p *Pod, s *scratch) *runtimeapi.ProcessUsage {
	out := &runtimeapi.ProcessUsage{Timestamp: time.Now().UnixNano()}
	parts := min(len(p.Parts), 1)
	places := parts + len(p.Containers)
	if c.opts.Node.CgroupV2 {
		places = len(p.Parts) + len(p.Containers) // on version 1 only these two count tasks
	}
	if tasks, ok := c.tasks(p.Cgroup, s); ok && !p.Shared && tasks == uint64(places) {
		out.ProcessCount = value(uint64(parts + len(p.Containers)))
		return out
	}
	total := uint64(0)
	for _, part := range p.Parts[:parts] {
		n, _ := c.countProcesses(part, s)
		total += n
	}
	for i := range p.Containers {
		n, _ := c.countProcesses(p.Containers[i].Cgroup, s)
		total += n
	}
	out.ProcessCount = value(total)
	return out
}

func (c *Collector) networkCRI(found []netInterface) *runtimeapi.NetworkUsage {
	out := &runtimeapi.NetworkUsage{Timestamp: time.Now().UnixNano()}
	for _, n := range found {
		one := &runtimeapi.NetworkInterfaceUsage{
			Name:    n.name,
			RxBytes: value(n.rxBytes), RxErrors: value(n.rxErrors),
			TxBytes: value(n.txBytes), TxErrors: value(n.txErrors),
		}
		if n.name == c.opts.Interface {
			out.DefaultInterface = one
		} else {
			out.Interfaces = append(out.Interfaces, one)
		}
	}
	return out
}

func (c *Collector) layer(ctr *Container) *runtimeapi.FilesystemUsage {
	l, ok := c.opts.Layer(ctr.ID)
	if !ok {
		return nil
	}
	return &runtimeapi.FilesystemUsage{
		Timestamp:  l.At.UnixNano(),
		FsId:       &runtimeapi.FilesystemIdentifier{Mountpoint: c.opts.LayersMountpoint},
		UsedBytes:  value(l.Bytes),
		InodesUsed: value(l.Inodes),
	}
}

func (u *usage) cpuCRI() *runtimeapi.CpuUsage {
	if u.cpu == nil {
		return nil
	}
	out := &runtimeapi.CpuUsage{
		Timestamp:            u.at.UnixNano(),
		UsageCoreNanoSeconds: value(u.cpu.usage),
		Psi:                  u.pressure[ofCPU].cri(),
	}
	if u.cpu.hasRate {
		out.UsageNanoCores = value(u.cpu.nanoCores)
	}
	return out
}

func (u *usage) memoryCRI() *runtimeapi.MemoryUsage {
	m := u.memory
	if m == nil {
		return nil
	}
	out := &runtimeapi.MemoryUsage{
		Timestamp:       u.at.UnixNano(),
		WorkingSetBytes: value(m.workingSet()),
		UsageBytes:      value(m.usage),
		Psi:             u.pressure[ofMemory].cri(),
	}
	if !m.totalOnly {
		out.RssBytes, out.PageFaults, out.MajorPageFaults = value(m.rss), value(m.faults), value(m.majorFaults)
	}
	if m.limited {
		out.AvailableBytes = value(sub(m.limit, m.workingSet()))
	}
	return out
}

func (u *usage) swapCRI() *runtimeapi.SwapUsage {
	m := u.memory
	if m == nil || m.totalOnly {
		return nil
	}
	out := &runtimeapi.SwapUsage{Timestamp: u.at.UnixNano(), SwapUsageBytes: value(m.swap)}
	if m.swapLimited {
		out.SwapAvailableBytes = value(sub(m.swapLimit, m.swap))
	}
	return out
}

func (u *usage) ioCRI() *runtimeapi.IoUsage {
	if u.pressure[ofIO] == nil {
		return nil
	}
	return &runtimeapi.IoUsage{Timestamp: u.at.UnixNano(), Psi: u.pressure[ofIO].cri()}
}

func value(n uint64) *runtimeapi.UInt64Value { return &runtimeapi.UInt64Value{Value: n} }
