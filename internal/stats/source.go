package stats

import (
	"path/filepath"

	"github.com/gantry-cri/gantry/internal/node"
)

// file names one thing that the kernel tells of a cgroup.
type file int

// The files. The first ones are read by every request and are kept open.
const (
	cpuUsage file = iota
	memoryUsage
	memoryStat
	memoryLimit
	cpuPressure
	memoryPressure
	ioPressure
	tasksNow
	hotFiles // the number of those above

	cpuTimes = hotFiles + iota - 9
	cpuThrottling
	cpuPeriod
	cpuQuota
	cpuShares
	swapUsage
	swapLimit
	memoryPeak
	memoryFailures
	memoryReservation
	memoryEvents
	tasksMax
	ioBytes
	ioOperations
	procs
	fileCount
)

// unified stands for the version 2 hierarchy of a hybrid node, which is the
// only place for what version 1 lacks.
const unified = "unified"

// fileNames says where each file is: on version 1 in the hierarchy of a
// controller, on version 2 in the one directory. "" is nowhere.
var fileNames = [fileCount]struct{ controller, v1, v2 string }{
	cpuUsage:          {"cpuacct", "cpuacct.usage", "cpu.stat"},
	memoryUsage:       {"memory", "memory.usage_in_bytes", "memory.current"},
	memoryStat:        {"memory", "memory.stat", "memory.stat"},
	memoryLimit:       {"memory", "memory.limit_in_bytes", "memory.max"},
	cpuPressure:       {unified, "cpu.pressure", "cpu.pressure"},
	memoryPressure:    {unified, "memory.pressure", "memory.pressure"},
	ioPressure:        {unified, "io.pressure", "io.pressure"},
	cpuTimes:          {"cpuacct", "cpuacct.stat", ""}, // on version 2 in cpu.stat
	cpuThrottling:     {"cpu", "cpu.stat", ""},         // on version 2 in cpu.stat
	cpuPeriod:         {"cpu", "cpu.cfs_period_us", "cpu.max"},
	cpuQuota:          {"cpu", "cpu.cfs_quota_us", ""}, // on version 2 in cpu.max
	cpuShares:         {"cpu", "cpu.shares", "cpu.weight"},
	swapUsage:         {"", "", "memory.swap.current"}, // on version 1 in memory.stat
	swapLimit:         {"memory", "memory.memsw.limit_in_bytes", "memory.swap.max"},
	memoryPeak:        {"memory", "memory.max_usage_in_bytes", "memory.peak"},
	memoryFailures:    {"memory", "memory.failcnt", ""}, // on version 2 in memory.events
	memoryReservation: {"memory", "memory.soft_limit_in_bytes", "memory.high"},
	memoryEvents:      {"memory", "memory.oom_control", "memory.events"},
	tasksNow:          {"pids", "pids.current", "pids.current"},
	tasksMax:          {"pids", "pids.max", "pids.max"},
	ioBytes:           {"blkio", "blkio.throttle.io_service_bytes_recursive", "io.stat"},
	ioOperations:      {"blkio", "blkio.throttle.io_serviced_recursive", ""}, // on version 2 in io.stat
	procs:             {"pids", "cgroup.procs", "cgroup.procs"},
}

// source is where a file is on this node: <root><cgroup>/<name>; the zero
// value is nowhere.
type source struct{ root, name string }

func sourcesOf(facts node.Facts) [fileCount]source {
	var out [fileCount]source
	for f, n := range fileNames {
		out[f] = sourceOf(facts, n.controller, n.v1, n.v2)
	}
	if out[procs] == (source{}) {
		for _, controller := range []string{"memory", "cpuacct", "freezer"} {
			if dir, ok := facts.CgroupV1[controller]; ok {
				out[procs] = source{dir, "cgroup.procs"}
			}
		}
	}
	return out
}

func sourceOf(facts node.Facts, controller, v1, v2 string) source {
	if facts.CgroupV2 {
		if v2 == "" {
			return source{}
		}
		return source{facts.CgroupRoot, v2}
	}
	root := facts.CgroupV1[controller]
	if controller == unified {
		root = facts.CgroupUnified
	}
	if root == "" || v1 == "" {
		return source{}
	}
	return source{root, v1}
}

func (s source) dir(cgroup string) string { return filepath.Join(s.root, cgroup) }

func (s source) file(cgroup string) string { return filepath.Join(s.root, cgroup, s.name) }
