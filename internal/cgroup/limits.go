package cgroup

import (
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	rspec "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/gantry-cri/gantry/internal/node"
)

// Limits plans the change that gives the cgroup the limits of r, where r sets
// any; it writes nothing. formerShares are the CPU shares that were asked for
// when the cgroup's weight was last set, 0 if none were: see weightOf. The kind
// of the error is Precondition if the cgroup does not exist (any more), and
// Invalid if r names a file that it does not have.
//
// The writes are in an order in which each state between two of them is one
// that the kernel accepts, if it accepts the last.
func Limits(f node.Facts, path string, r *rspec.LinuxResources, formerShares uint64) (Change, error) {
	p := plan{facts: f, path: Clean(path)}
	p.memory(r.Memory)
	p.cpu(r.CPU, formerShares)
	p.hugepages(r.HugepageLimits)
	p.unified(r.Unified)
	if p.err != nil {
		return nil, fmt.Errorf("limits of cgroup %s: %w", path, p.err)
	}
	return p.change, nil
}

// plan is a Change under construction.
type plan struct {
	facts  node.Facts
	path   string
	change Change
	err    error // the first
}

// file is the path of a controller's file; each version names them in its way.
func (p *plan) file(controller, name string) string {
	if p.facts.CgroupV2 {
		return filepath.Join(p.facts.CgroupRoot, p.path, name)
	}
	return filepath.Join(p.facts.CgroupV1[controller], p.path, name)
}

// read returns what a file says now, "" after an error.
func (p *plan) read(file string) string {
	text, err := os.ReadFile(file)
	if err != nil && p.err == nil {
		p.err = explainMissing(file, err)
	}
	return strings.TrimSpace(string(text))
}

// set plans one write.
func (p *plan) set(file, value string) {
	if old := p.read(file); p.err == nil {
		p.change = append(p.change, Write{File: file, Old: old, New: value})
	}
}

// memory sets the limits of memory. On version 1 the limit of both memory and
// swap can at no time be below that of memory.
func (p *plan) memory(m *rspec.LinuxMemory) {
	if m == nil {
		return
	}
	if p.facts.CgroupV2 {
		if m.Limit != nil {
			p.set(p.file("memory", "memory.max"), orMax(*m.Limit))
		}
		if m.Swap != nil {
			p.set(p.file("memory", "memory.swap.max"), swapOnly(m))
		}
		return
	}
	limit, both := p.file("memory", "memory.limit_in_bytes"), p.file("memory", "memory.memsw.limit_in_bytes")
	raise := m.Swap != nil && m.Limit != nil && bytesOf(strconv.FormatInt(*m.Limit, 10)) > bytesOf(p.read(both))
	if raise {
		p.set(both, strconv.FormatInt(*m.Swap, 10))
	}
	if m.Limit != nil {
		p.set(limit, strconv.FormatInt(*m.Limit, 10))
	}
	if m.Swap != nil && !raise {
		p.set(both, strconv.FormatInt(*m.Swap, 10))
	}
}

// bytesOf reads a limit of memory: -1 and max are none, the highest.
func bytesOf(text string) uint64 {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return math.MaxUint64
	}
	return n
}

func unlimited(n uint64) bool { return n == math.MaxUint64 }

func orMax(n int64) string {
	if n < 0 {
		return "max"
	}
	return strconv.FormatInt(n, 10)
}

// swapOnly is version 2's limit of swap: the specification's includes memory.
func swapOnly(m *rspec.LinuxMemory) string {
	if *m.Swap < 0 || m.Limit == nil || *m.Limit < 0 {
		return "max"
	}
	return strconv.FormatInt(*m.Swap-*m.Limit, 10)
}

func (p *plan) cpu(c *rspec.LinuxCPU, formerShares uint64) {
	if c == nil {
		return
	}
	if c.Shares != nil && p.facts.CgroupV2 {
		file := p.file("cpu", "cpu.weight")
		p.set(file, weightOf(*c.Shares, formerShares, p.read(file)))
	} else if c.Shares != nil {
		p.set(p.file("cpu", "cpu.shares"), strconv.FormatUint(*c.Shares, 10))
	}
	if c.Quota != nil || c.Period != nil {
		p.bandwidth(c)
	}
	if c.Cpus != "" {
		p.set(p.file("cpuset", "cpuset.cpus"), c.Cpus)
	}
	if c.Mems != "" {
		p.set(p.file("cpuset", "cpuset.mems"), c.Mems)
	}
}

// bandwidth sets quota and period. On version 1 each is a file, and the kernel
// compares their ratio to the parent's after each write: of the two ratios that
// can lie between the old and the new one the smaller is taken, which is never
// above both. A child without a quota has the parent's, whatever its period is.
func (p *plan) bandwidth(c *rspec.LinuxCPU) {
	if p.facts.CgroupV2 {
		file := p.file("cpu", "cpu.max")
		quota, period, _ := strings.Cut(p.read(file), " ")
		if c.Quota != nil {
			quota = orMax(*c.Quota)
		}
		if c.Period != nil {
			period = strconv.FormatUint(*c.Period, 10)
		}
		p.set(file, strings.TrimSpace(quota+" "+period))
		return
	}
	quotaFile, periodFile := p.file("cpu", "cpu.cfs_quota_us"), p.file("cpu", "cpu.cfs_period_us")
	quota, period := bytesOf(p.read(quotaFile)), bytesOf(p.read(periodFile))
	newQuota, newPeriod := quota, period
	if c.Quota != nil {
		newQuota = bytesOf(strconv.FormatInt(*c.Quota, 10))
	}
	if c.Period != nil {
		newPeriod = *c.Period
	}
	setQuota := func() {
		if c.Quota != nil {
			p.set(quotaFile, strconv.FormatInt(*c.Quota, 10))
		}
	}
	quotaFirst := unlimited(newQuota) || !unlimited(quota) && float64(newQuota)/float64(period) <= float64(quota)/float64(newPeriod)
	if quotaFirst {
		setQuota()
	}
	if c.Period != nil {
		p.set(periodFile, strconv.FormatUint(*c.Period, 10))
	}
	if !quotaFirst {
		setQuota()
	}
}

// weightOf converts CPU shares to version 2's weight. Runtimes do that in one
// of two ways: on a line from (2, 1) to (262144, 10000), or, since 2025, on a
// curve that also goes through (1024, 100), the defaults. A container keeps to
// the way of the runtime that made it, which its present weight shows.
// See https://github.com/kubernetes/enhancements/issues/2254.
func weightOf(shares, former uint64, present string) string {
	line := func(s uint64) string { return strconv.FormatUint(1+(s-2)*9999/262142, 10) }
	curve := func(s uint64) string {
		l := math.Log2(float64(s))
		return strconv.Itoa(int(math.Ceil(math.Pow(10, (l*l+125*l)/612.0-7.0/34.0))))
	}
	if former >= 2 && present == line(former) && present != curve(former) {
		return line(shares)
	}
	return curve(shares)
}

func (p *plan) hugepages(limits []rspec.LinuxHugepageLimit) {
	for _, l := range limits {
		name, value := "hugetlb."+l.Pagesize+".limit_in_bytes", strconv.FormatUint(l.Limit, 10)
		if p.facts.CgroupV2 {
			name = "hugetlb." + l.Pagesize + ".max"
		}
		if l.Limit > math.MaxInt64 {
			value = map[bool]string{true: "max", false: "-1"}[p.facts.CgroupV2]
		}
		p.set(p.file("hugetlb", name), value)
	}
}

// unified sets files of version 2 by their names; cpu.max.burst can at no time
// be above the quota, so that lowering it comes before all else.
func (p *plan) unified(files map[string]string) {
	for _, name := range slices.Sorted(maps.Keys(files)) {
		file := filepath.Join(p.facts.CgroupRoot, p.path, name)
		lowered := name == "cpu.max.burst" && bytesOf(files[name]) < bytesOf(p.read(file))
		p.set(file, files[name])
		if last := len(p.change) - 1; lowered && p.err == nil {
			p.change = slices.Insert(p.change[:last], 0, p.change[last])
		}
	}
}
