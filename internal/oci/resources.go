package oci

import (
	"math"
	"slices"

	rspec "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/internal/node"
)

// setResources sets the limits of the container's cgroup, and its OOM score.
func (s *containerSpec) setResources() error {
	resources := s.in.Config.GetLinux().GetResources()
	// The score is always written: without it the process would have the
	// daemon's, which a service manager may have made nearly immune.
	s.SetProcessOOMScoreAdj(s.in.Node.ClampOOMScoreAdj(resources.GetOomScoreAdj()))
	limits, err := Resources(resources, s.in.Node)
	if err != nil {
		return err
	}
	limits.Devices = s.Config.Linux.Resources.Devices
	if s.in.PidsLimit > 0 && s.in.Node.CgroupControllers["pids"] {
		limits.Pids = &rspec.LinuxPids{Limit: &s.in.PidsLimit}
	}
	s.Config.Linux.Resources = limits
	return nil
}

// Resources translates the limits of a request (which may be nil) for a
// runtime: zero and "" mean that nothing is asked for. What the node can't
// limit is refused. The OOM score is no part of it.
func Resources(r *runtimeapi.LinuxContainerResources, n node.Facts) (*rspec.LinuxResources, error) {
	out := &rspec.LinuxResources{}
	if r == nil {
		return out, nil
	}
	var err error
	if out.CPU, err = cpuLimits(r, n); err != nil {
		return nil, err
	}
	if out.Memory, err = memoryLimits(r, n); err != nil {
		return nil, err
	}
	if out.HugepageLimits, err = hugepageLimits(r, n); err != nil {
		return nil, err
	}
	if unified := r.GetUnified(); len(unified) > 0 {
		if !n.CgroupV2 {
			return nil, unsupported("resources: unified is for cgroup version 2, and this node has version 1")
		}
		out.Unified = unified
	}
	return out, nil
}

func cpuLimits(r *runtimeapi.LinuxContainerResources, n node.Facts) (*rspec.LinuxCPU, error) {
	cpu := &rspec.LinuxCPU{Cpus: r.GetCpusetCpus(), Mems: r.GetCpusetMems()}
	switch {
	case r.GetCpuShares() < 0 || r.GetCpuPeriod() < 0:
		return nil, invalid("resources: negative cpu_shares or cpu_period")
	case (cpu.Cpus != "" || cpu.Mems != "") && !n.CgroupControllers["cpuset"]:
		return nil, unsupported("resources: this node has no cpuset controller")
	}
	if v := uint64(r.GetCpuShares()); v != 0 {
		cpu.Shares = &v
	}
	if v := uint64(r.GetCpuPeriod()); v != 0 {
		cpu.Period = &v
	}
	if v := r.GetCpuQuota(); v != 0 {
		cpu.Quota = &v
	}
	asked := cpu.Shares != nil || cpu.Period != nil || cpu.Quota != nil
	if asked && !n.CgroupControllers["cpu"] {
		return nil, unsupported("resources: this node has no cpu controller")
	}
	if !asked && cpu.Cpus == "" && cpu.Mems == "" {
		return nil, nil
	}
	return cpu, nil
}

// memoryLimits limits memory, and the sum of memory and swap. With a limit of
// memory and none of swap the container may not swap at all, where the node
// can see to that: the kubelet counts on memory being all there is.
func memoryLimits(r *runtimeapi.LinuxContainerResources, n node.Facts) (*rspec.LinuxMemory, error) {
	limit, swap := r.GetMemoryLimitInBytes(), r.GetMemorySwapLimitInBytes()
	if limit == 0 && swap == 0 {
		return nil, nil
	}
	if !n.CgroupControllers["memory"] {
		return nil, unsupported("resources: this node has no memory controller")
	}
	if swap > 0 && limit > 0 && swap < limit {
		return nil, invalid("resources: memory_swap_limit_in_bytes %d is less than memory_limit_in_bytes %d, which it includes", swap, limit)
	}
	memory := &rspec.LinuxMemory{}
	if limit != 0 {
		memory.Limit = &limit
	}
	switch {
	case n.SwapAccounting && swap != 0:
		memory.Swap = &swap
	case n.SwapAccounting:
		memory.Swap = &limit
	case swap > 0 && swap != limit:
		return nil, unsupported("resources: this node can't limit swap")
	}
	return memory, nil
}

// hugepageLimits limits huge pages by their size. The kubelet sends a limit
// of 0 for each size that it knows of: where there is no controller, nothing
// is to be forbidden.
func hugepageLimits(r *runtimeapi.LinuxContainerResources, n node.Facts) ([]rspec.LinuxHugepageLimit, error) {
	var limits []rspec.LinuxHugepageLimit
	for _, l := range r.GetHugepageLimits() {
		known := n.CgroupControllers["hugetlb"] && slices.Contains(n.HugepageSizes, l.GetPageSize())
		switch {
		case known:
			limits = append(limits, rspec.LinuxHugepageLimit{Pagesize: l.GetPageSize(), Limit: l.GetLimit()})
		case l.GetLimit() != 0 && l.GetLimit() != math.MaxUint64:
			return nil, unsupported("resources: this node has no huge pages of size %q, or can't limit them", l.GetPageSize())
		}
	}
	return limits, nil
}

// addRlimit sets a limit of the process, clamped to what the daemon can give.
func (s *containerSpec) addRlimit(l rspec.POSIXRlimit) error {
	if _, known := s.in.Node.Rlimits[l.Type]; !known {
		return invalid("rlimits: %q is not a resource limit", l.Type)
	}
	if l.Soft > l.Hard {
		return invalid("rlimits: %s: the soft limit %d is above the hard limit %d", l.Type, l.Soft, l.Hard)
	}
	clamped, _ := s.in.Node.ClampRlimit(l.Type, node.Rlimit{Soft: l.Soft, Hard: l.Hard})
	s.AddProcessRlimits(l.Type, clamped.Hard, clamped.Soft)
	return nil
}
