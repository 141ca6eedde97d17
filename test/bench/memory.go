package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gantry-cri/gantry/internal/node"
)

// memory is the proportional set size of a server's processes, in MiB: a page
// that k processes share counts as 1/k in each.
type memory struct {
	daemon     float64
	helpers    float64 // shims, monitors and pause programs
	containers float64 // the containers' own processes
	processes  int
}

func (m memory) all() float64 { return m.daemon + m.helpers + m.containers }

// memory reads the memory of the daemon and of all processes below its cgroup.
func (s *server) memory() (memory, error) {
	var m memory
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return m, err
	}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || !s.owns(pid) {
			continue
		}
		size, err := pss(pid)
		if err != nil {
			return m, err
		}
		m.processes++
		switch {
		case pid == s.cmd.Process.Pid:
			m.daemon += size
		case isContainer(pid):
			m.containers += size
		default:
			m.helpers += size
		}
	}
	return m, nil
}

func (s *server) owns(pid int) bool {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	return err == nil && bytes.Contains(data, []byte(s.cgroup+"/"))
}

func isContainer(pid int) bool {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return err == nil && strings.TrimRight(string(data), "\x00") == strings.Join(sleepArgs(), "\x00")
}

// pss is 0 for a process that is gone.
func pss(pid int) (float64, error) {
	file := fmt.Sprintf("/proc/%d/smaps_rollup", pid)
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		rest, ok := strings.CutPrefix(line, "Pss:")
		if !ok {
			continue
		}
		kib, err := strconv.Atoi(strings.Fields(rest)[0])
		return float64(kib) / 1024, err
	}
	return 0, fmt.Errorf("%s has no line Pss", file)
}

// accounts are the hierarchies that a daemon's processes are told from others by.
func accounts(f node.Facts) []string {
	if f.CgroupV2 {
		return []string{f.CgroupRoot}
	}
	var dirs []string
	for _, controller := range []string{"name=systemd", "cpuacct"} {
		if dir, ok := f.CgroupV1[controller]; ok {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}
