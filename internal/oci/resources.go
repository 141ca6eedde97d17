package oci

import (
	"slices"
	"strings"

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
	if err := CheckResources(r); err != nil {
		return nil, err
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
	if out.Unified, err = unifiedLimits(r, n); err != nil {
		return nil, err
	}
	return out, nil
}

// unifiedLimits are files of cgroup version 2 with their contents: memory.min,
// memory.high and cpu.max.burst have no other field.
func unifiedLimits(r *runtimeapi.LinuxContainerResources, n node.Facts) (map[string]string, error) {
	for key := range r.GetUnified() {
		if !n.CgroupV2 {
			return nil, unsupported("resources: unified is for cgroup version 2, and this node has version 1")
		}
		if controller, _, _ := strings.Cut(key, "."); !n.CgroupControllers[controller] {
			return nil, unsupported("resources: unified: %s: this node has no %s controller", key, controller)
		}
	}
	return r.GetUnified(), nil
}

func cpuLimits(r *runtimeapi.LinuxContainerResources, n node.Facts) (*rspec.LinuxCPU, error) {
	cpu := &rspec.LinuxCPU{Cpus: r.GetCpusetCpus(), Mems: r.GetCpusetMems()}
	if (cpu.Cpus != "" || cpu.Mems != "") && !n.CgroupControllers["cpuset"] {
		return nil, unsupported("resources: this node has no cpuset controller")
	}
	if err := checkCpuset(r, n); err != nil {
		return nil, err
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
// memory and none of swap, memory.swap.max included, the container may not swap
// at all, where the node can see to that: the kubelet counts on memory being all
// there is.
func memoryLimits(r *runtimeapi.LinuxContainerResources, n node.Facts) (*rspec.LinuxMemory, error) {
	limit, swap := r.GetMemoryLimitInBytes(), r.GetMemorySwapLimitInBytes()
	if limit == 0 && swap == 0 {
		return nil, nil
	}
	if !n.CgroupControllers["memory"] {
		return nil, unsupported("resources: this node has no memory controller")
	}
	if swap > 0 && limit <= 0 {
		return nil, invalid("resources: memory_swap_limit_in_bytes %d without a memory limit: it is the sum of both", swap)
	}
	memory := &rspec.LinuxMemory{}
	if limit != 0 {
		memory.Limit = &limit
	}
	// As the kubelet limits swap where nodes have some.
	_, ofItsOwn := r.GetUnified()["memory.swap.max"]
	switch {
	case n.SwapAccounting && swap != 0:
		memory.Swap = &swap
	case n.SwapAccounting && !ofItsOwn:
		memory.Swap = memory.Limit
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
		case forbidsNothing(l):
		case !n.CgroupControllers["hugetlb"]:
			return nil, unsupported("resources: this node has no hugetlb controller")
		default:
			return nil, invalid("resources: hugepage_limits: this node has no huge pages of size %q", l.GetPageSize())
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
