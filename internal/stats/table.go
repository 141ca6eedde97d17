package stats

import (
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// family is one metric of the table: its description, and where its values
// come from. The names, labels and meanings are those of cAdvisor, for which the
// kubelet shows these metrics at /metrics/cadvisor (KEP 2371), except that the
// CRI's values are whole numbers: seconds are full seconds.
type family struct {
	name   string
	help   string
	kind   runtimeapi.MetricType
	labels []string // after those that every metric has
	values func(*subject, *builder)
	of     scope
}

// scope says of what a family is told.
type scope int

const (
	ofContainer scope = 1 << iota
	ofPod
	ofBoth = ofContainer | ofPod
)

const (
	counter = runtimeapi.MetricType_COUNTER
	gauge   = runtimeapi.MetricType_GAUGE
)

// commonLabels are the first labels of every metric. As with cAdvisor, id is
// the cgroup, name the container's id, and container the name in the pod; a
// pod's own metrics leave container, image and name empty.
var commonLabels = []string{"container", "id", "image", "name", "namespace", "pod"}

// families is the table of every metric.
func families() []family {
	var all []family
	for _, part := range [][]family{cpuFamilies(), memoryFamilies(), pressureFamilies(), processFamilies(),
		specFamilies(), fileSystemFamilies(), blockFamilies(), networkFamilies(), timeFamilies()} {
		all = append(all, part...)
	}
	return all
}

func cpuFamilies() []family {
	return []family{
		{"container_cpu_usage_seconds_total", "CPU time consumed, in seconds.", counter, []string{"cpu"},
			func(x *subject, b *builder) {
				if x.usage.cpu != nil {
					b.sampledAt(x.toldAt())
					b.add(seconds(x.usage.cpu.usage), "total")
				}
			}, ofBoth},
		{"container_cpu_user_seconds_total", "CPU time consumed in user mode, in seconds.", counter, nil,
			sampled(func(d *details) uint64 { return seconds(d.user) }), ofContainer},
		{"container_cpu_system_seconds_total", "CPU time consumed in the kernel, in seconds.", counter, nil,
			sampled(func(d *details) uint64 { return seconds(d.system) }), ofContainer},
		{"container_cpu_cfs_periods_total", "Periods in which the CPU limit was enforced.", counter, nil,
			sampled(func(d *details) uint64 { return d.periods }), ofContainer},
		{"container_cpu_cfs_throttled_periods_total", "Periods in which the container was throttled.", counter, nil,
			sampled(func(d *details) uint64 { return d.throttled }), ofContainer},
		{"container_cpu_cfs_throttled_seconds_total", "Time for which the container was throttled, in seconds.", counter, nil,
			sampled(func(d *details) uint64 { return seconds(d.throttledTime) }), ofContainer},
	}
}

func memoryFamilies() []family {
	return []family{
		{"container_memory_usage_bytes", "Memory in use, the page cache included, in bytes.", gauge, nil,
			ofMem(func(m *memory) uint64 { return m.usage }), ofBoth},
		{"container_memory_working_set_bytes", "Memory in use that can't be reclaimed easily, in bytes.", gauge, nil,
			ofMem(func(m *memory) uint64 { return m.workingSet() }), ofBoth},
		{"container_memory_rss", "Anonymous memory, in bytes.", gauge, nil,
			ofMemPart(func(m *memory) uint64 { return m.rss }), ofBoth},
		{"container_memory_cache", "Page cache, in bytes.", gauge, nil,
			ofMemPart(func(m *memory) uint64 { return m.cache }), ofBoth},
		{"container_memory_mapped_file", "Memory that files are mapped to, in bytes.", gauge, nil,
			ofMemPart(func(m *memory) uint64 { return m.mapped }), ofBoth},
		{"container_memory_swap", "Swap in use, in bytes.", gauge, nil,
			ofMemPart(func(m *memory) uint64 { return m.swap }), ofBoth},
		{"container_memory_kernel_usage", "Memory that the kernel uses for the container, in bytes.", gauge, nil,
			func(x *subject, b *builder) {
				if m := x.usage.memory; m != nil && m.kernelKnown { // version 1 does not say it beside the rest
					b.add(m.kernel)
				}
			}, ofBoth},
		{"container_memory_total_active_file_bytes", "Page cache that was used lately, in bytes.", gauge, nil,
			ofMemPart(func(m *memory) uint64 { return m.activeFile }), ofBoth},
		{"container_memory_total_inactive_file_bytes", "Page cache that was not used lately, in bytes.", gauge, nil,
			ofMemPart(func(m *memory) uint64 { return m.inactiveFile }), ofBoth},
		{"container_memory_failures_total", "Page faults.", counter, []string{"failure_type", "scope"},
			func(x *subject, b *builder) {
				if m := x.usage.memory; m != nil && !m.totalOnly {
					b.add(m.faults, "pgfault", "hierarchy")
					b.add(m.majorFaults, "pgmajfault", "hierarchy")
				}
			}, ofBoth},
		{"container_memory_max_usage_bytes", "Most memory that was ever in use, in bytes.", gauge, nil,
			sampled(func(d *details) uint64 { return d.peak }), ofContainer},
		{"container_memory_failcnt", "How often the memory limit was met.", counter, nil,
			sampled(func(d *details) uint64 { return d.failures }), ofContainer},
		{"container_memory_events_high_total", "How often the container was slowed down for its use above memory.high; version 1 has none.", counter, nil,
			sampled(func(d *details) uint64 { return d.slowed }), ofContainer},
		{"container_memory_events_max_total", "How often the memory limit was met.", counter, nil,
			sampled(func(d *details) uint64 { return d.failures }), ofContainer},
		{"container_oom_events_total", "Processes killed for want of memory.", counter, nil,
			sampled(func(d *details) uint64 { return d.oomKills }), ofContainer},
	}
}

func pressureFamilies() []family {
	return []family{
		{"container_pressure_cpu_waiting_seconds_total", "Time in which some tasks waited for a CPU, in seconds.", counter, nil, waiting(ofCPU), ofBoth},
		{"container_pressure_cpu_stalled_seconds_total", "Time in which all tasks waited for a CPU, in seconds.", counter, nil, stalled(ofCPU), ofBoth},
		{"container_pressure_memory_waiting_seconds_total", "Time in which some tasks waited for memory, in seconds.", counter, nil, waiting(ofMemory), ofBoth},
		{"container_pressure_memory_stalled_seconds_total", "Time in which all tasks waited for memory, in seconds.", counter, nil, stalled(ofMemory), ofBoth},
		{"container_pressure_io_waiting_seconds_total", "Time in which some tasks waited for I/O, in seconds.", counter, nil, waiting(ofIO), ofBoth},
		{"container_pressure_io_stalled_seconds_total", "Time in which all tasks waited for I/O, in seconds.", counter, nil, stalled(ofIO), ofBoth},
	}
}

func processFamilies() []family {
	return []family{
		{"container_processes", "Processes in the container.", gauge, nil,
			sampled(func(d *details) uint64 { return d.processes }), ofContainer},
		{"container_threads", "Threads in the container.", gauge, nil,
			threads, ofContainer},
		{"container_threads_max", "Most threads that the container may have; 0 is no limit.", gauge, nil,
			configured(func(d *details) uint64 { return d.threadsMax }), ofContainer},
		{"container_file_descriptors", "Files that the container's processes have open.", gauge, nil,
			counted(func(d *details) uint64 { return d.files }), ofContainer},
		{"container_sockets", "Sockets that the container's processes have open.", gauge, nil,
			counted(func(d *details) uint64 { return d.sockets }), ofContainer},
		{"container_tasks_state", "Threads in each state.", gauge, []string{"state"},
			func(x *subject, b *builder) {
				if d := x.details; d != nil && d.complete {
					b.sampledAt(d.at)
					for i, name := range stateNames {
						b.add(d.states[i], name)
					}
				}
			}, ofContainer},
		{"container_ulimits_soft", "Soft limits of the container's first process.", gauge, []string{"ulimit"},
			func(x *subject, b *builder) {
				if d := x.details; d != nil && d.openFilesLimited {
					b.sampledAt(d.at)
					b.add(d.openFiles, "max_open_files")
				}
			}, ofContainer},
	}
}

func specFamilies() []family {
	return []family{
		{"container_spec_cpu_period", "Period of the CPU limit, in microseconds.", gauge, nil,
			configured(func(d *details) uint64 { return d.period }), ofContainer},
		{"container_spec_cpu_quota", "CPU time in each period, in microseconds; absent without a limit.", gauge, nil,
			func(x *subject, b *builder) {
				if d := x.details; d != nil && d.quotaSet {
					b.sampledAt(d.at)
					b.add(d.quota)
				}
			}, ofContainer},
		{"container_spec_cpu_shares", "Share of the CPU.", gauge, nil,
			configured(func(d *details) uint64 { return d.shares }), ofContainer},
		{"container_spec_memory_limit_bytes", "Memory limit, in bytes; 0 is none.", gauge, nil,
			configured(func(d *details) uint64 { return d.limit }), ofContainer},
		{"container_spec_memory_swap_limit_bytes", "Swap limit, in bytes (with cgroup v1: of memory and swap together); 0 is none.", gauge, nil,
			configured(func(d *details) uint64 { return d.swapLimit }), ofContainer},
		{"container_spec_memory_reservation_limit_bytes", "Memory above which the container is reclaimed from first, in bytes; 0 is none.", gauge, nil,
			configured(func(d *details) uint64 { return d.reservation }), ofContainer},
	}
}

func timeFamilies() []family {
	return []family{
		{"container_start_time_seconds", "When the container started, in seconds since 1970.", gauge, nil,
			func(x *subject, b *builder) {
				if !x.started.IsZero() {
					b.add(uint64(x.started.Unix()))
				}
			}, ofBoth},
		{"container_last_seen", "When the container was last looked at, in seconds since 1970.", gauge, nil,
			func(x *subject, b *builder) {
				if !x.usage.at.IsZero() {
					b.add(uint64(x.usage.at.Unix()))
				}
			}, ofBoth},
	}
}
