package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-cri/gantry/internal/node"
)

// cpuTime is the processor time that all processes of the cgroup and of those
// below it have used so far, also of cgroups that are gone.
func cpuTime(f node.Facts, cgroup string) (time.Duration, error) {
	if !f.CgroupV2 {
		data, err := os.ReadFile(filepath.Join(f.CgroupV1["cpuacct"], cgroup, "cpuacct.usage"))
		if err != nil {
			return 0, err
		}
		ns, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
		return time.Duration(ns), err
	}
	file := filepath.Join(f.CgroupRoot, cgroup, "cpu.stat")
	data, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	var us int64
	if _, err := fmt.Sscanf(string(data), "usage_usec %d", &us); err != nil {
		return 0, fmt.Errorf("%s: %w", file, err)
	}
	return time.Duration(us) * time.Microsecond, nil
}

// cpu is the processor time of the floor so far: of the commands it ran, and of
// the containers they made.
func (f *floor) cpu() (time.Duration, error) {
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_CHILDREN, &usage); err != nil {
		return 0, err
	}
	containers, err := cpuTime(f.bench.node, f.cgroup)
	return time.Duration(usage.Utime.Nano()+usage.Stime.Nano()) + containers, err
}

// cpu is the processor time of the server and of all that it started so far.
func (s *server) cpu() (time.Duration, error) { return cpuTime(s.node, s.cgroup) }
