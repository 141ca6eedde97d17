package stats

// parseV1 takes the lines of a version 1 memory.stat. Its total_ figures
// include the cgroups below.
func (m *memory) parseV1(text []byte) {
	var memoryMost, memswMost uint64
	pairs(text, func(key []byte, n uint64) {
		switch string(key) {
		case "total_rss":
			m.rss = n
		case "total_cache":
			m.cache = n
		case "total_mapped_file":
			m.mapped = n
		case "total_swap":
			m.swap = n
		case "total_active_file":
			m.activeFile = n
		case "total_inactive_file":
			m.inactiveFile = n
		case "total_pgfault":
			m.faults = n
		case "total_pgmajfault":
			m.majorFaults = n
		case "hierarchical_memory_limit":
			memoryMost = n
		case "hierarchical_memsw_limit":
			memswMost = n
		}
	})
	// The limit of memory and swap together is the cgroup's own where that of
	// memory is.
	if m.limited && memoryMost == m.limit && memswMost < 1<<62 {
		m.swapLimit, m.swapLimited = sub(memswMost, m.limit), true
	}
}

// parseV2 takes the lines of a version 2 memory.stat, all of which include the
// cgroups below.
func (m *memory) parseV2(text []byte) {
	pairs(text, func(key []byte, n uint64) {
		switch string(key) {
		case "anon":
			m.rss = n
		case "file":
			m.cache = n
		case "file_mapped":
			m.mapped = n
		case "kernel":
			m.kernel, m.kernelKnown = n, true
		case "active_file":
			m.activeFile = n
		case "inactive_file":
			m.inactiveFile = n
		case "pgfault":
			m.faults = n
		case "pgmajfault":
			m.majorFaults = n
		}
	})
}

// swapV2Locked reads the swap files, which are absent where the kernel does not
// account for swap.
func (c *Collector) swapV2Locked(g *group, m *memory, s *scratch) {
	if text, err := c.readLocked(g, swapUsage, &s.buf); err == nil {
		m.swap, _ = number(text)
	}
	if text, err := c.readLocked(g, swapLimit, &s.buf); err == nil {
		m.swapLimit, m.swapLimited = limit(text)
	}
}

// add adds the counters of another cgroup. Limits are not added.
func (m *memory) add(o *memory) {
	m.usage += o.usage
	m.rss += o.rss
	m.cache += o.cache
	m.mapped += o.mapped
	m.swap += o.swap
	m.kernel += o.kernel
	m.activeFile += o.activeFile
	m.inactiveFile += o.inactiveFile
	m.faults += o.faults
	m.majorFaults += o.majorFaults
}
