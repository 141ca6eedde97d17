package stats

import (
	"errors"
	"time"
)

// usage is what a request reads of a cgroup.
type usage struct {
	at       time.Time
	cpu      *cpu    // nil where the kernel does not tell
	memory   *memory // likewise
	pressure [3]*pressure
}

// Indices of usage.pressure.
const (
	ofCPU = iota
	ofMemory
	ofIO
)

// cpu is in nanoseconds.
type cpu struct {
	usage     uint64
	nanoCores uint64 // of the last seconds
	hasRate   bool   // nanoCores is known
}

// memory is in bytes but for the two counts of faults. Each figure is that of
// the cgroup and all below it.
type memory struct {
	usage, rss, cache, mapped, swap, kernel uint64
	activeFile, inactiveFile                uint64
	faults, majorFaults                     uint64
	limit, swapLimit                        uint64 // swapLimit is of swap alone
	limited, swapLimited, kernelKnown       bool
	totalOnly                               bool // only usage is known
}

// workingSet is what can't be reclaimed without effort: the definition of the
// kubelet's eviction.
func (m *memory) workingSet() uint64 { return sub(m.usage, m.inactiveFile) }

// scratch is what a reading goroutine uses again and again.
type scratch struct {
	buf            []byte // of a file
	pod, container []byte // encoded metrics
}

// usage reads the usage of a cgroup; false when the cgroup is gone.
func (c *Collector) usage(path string, s *scratch) (usage, bool) {
	g := c.group(path)
	g.mu.Lock()
	defer g.mu.Unlock()
	u := usage{at: time.Now()}
	u.cpu = c.cpuLocked(g, u.at, s)
	u.memory = c.memoryLocked(g, s)
	if u.cpu == nil && u.memory == nil {
		return usage{}, false
	}
	for i, f := range []file{cpuPressure, memoryPressure, ioPressure} {
		if text, err := c.readLocked(g, f, &s.buf); err == nil {
			u.pressure[i] = parsePressure(text)
		}
	}
	return u, true
}

func (c *Collector) cpuLocked(g *group, at time.Time, s *scratch) *cpu {
	text, err := c.readLocked(g, cpuUsage, &s.buf)
	if err != nil {
		return nil
	}
	n, ok := c.parseCPU(text)
	if !ok {
		return nil
	}
	out := &cpu{usage: n}
	out.nanoCores, out.hasRate = g.rate.add(point{at, n})
	return out
}

// parseCPU returns the nanoseconds of cpuacct.usage, or of cpu.stat.
func (c *Collector) parseCPU(text []byte) (uint64, bool) {
	if !c.opts.Node.CgroupV2 {
		return number(text)
	}
	var n uint64
	found := false
	pairs(text, func(key []byte, v uint64) {
		if string(key) == "usage_usec" {
			n, found = v*1000, true
		}
	})
	return n, found
}

func (c *Collector) memoryLocked(g *group, s *scratch) *memory {
	text, err := c.readLocked(g, memoryUsage, &s.buf)
	if err != nil {
		return nil
	}
	m := &memory{}
	m.usage, _ = number(text)
	if text, err = c.readLocked(g, memoryLimit, &s.buf); err == nil {
		m.limit, m.limited = limit(text)
	}
	if text, err = c.readLocked(g, memoryStat, &s.buf); errors.Is(err, errAbsent) {
		return nil
	}
	if c.opts.Node.CgroupV2 {
		m.parseV2(text)
		c.swapV2Locked(g, m, s)
	} else {
		m.parseV1(text)
	}
	return m
}

// point is a reading of a counter of nanoseconds.
type point struct {
	at    time.Time
	usage uint64
}

// rate keeps two readings of a counter, so that each reading can be compared
// with one that is not too near.
type rate struct{ older, newer point }

// Windows of a rate: nearWindow is the least that says anything, and fullWindow
// what is preferred.
const (
	nearWindow = 100 * time.Millisecond
	fullWindow = time.Second
)

// add takes a reading and returns the rate since an earlier one, in
// nanoseconds per second; false where there is none to compare with.
func (r *rate) add(p point) (uint64, bool) {
	if p.usage < r.newer.usage { // another cgroup of the same name
		*r = rate{}
	}
	base := r.newer
	if p.at.Sub(base.at) < fullWindow && !r.older.at.IsZero() {
		base = r.older
	}
	if r.newer.at.IsZero() || p.at.Sub(r.newer.at) >= fullWindow {
		r.older, r.newer = r.newer, p
	}
	window := p.at.Sub(base.at)
	if base.at.IsZero() || window < nearWindow {
		return 0, false
	}
	return uint64(float64(p.usage-base.usage) / window.Seconds()), true
}
