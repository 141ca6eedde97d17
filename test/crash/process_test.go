package crash

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// initOf finds a container's first process: the one of its cgroup whose parent
// is in another.
func initOf(t *testing.T, container string) int {
	t.Helper()
	for _, pid := range processesIn(t, container) {
		if !inside(t, parentOf(t, pid), container) {
			return pid
		}
	}
	t.Fatalf("no process is in a cgroup of container %s", container)
	return 0
}

// processesIn lists the processes in cgroups whose path holds a text.
func processesIn(t *testing.T, path string) []int {
	t.Helper()
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err == nil && inside(t, pid, path) {
			pids = append(pids, pid)
		}
	}
	return pids
}

func inside(t *testing.T, pid int, path string) bool {
	t.Helper()
	body, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	return err == nil && strings.Contains(string(body), path) // else it is gone
}

// parentOf is a process's parent, 0 if it is gone.
func parentOf(t *testing.T, pid int) int {
	t.Helper()
	body, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, after, _ := strings.Cut(string(body), ") ")
	fields := strings.Fields(after)
	if len(fields) < 2 {
		return 0
	}
	parent, err := strconv.Atoi(fields[1])
	if err != nil {
		t.Fatal(err)
	}
	return parent
}

// cgroupOf is the directory of a process's cgroup: of a version 1 controller, or
// of version 2 where that is all there is.
func cgroupOf(t *testing.T, pid int, controller string) (dir string, v2 bool) {
	t.Helper()
	body, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(body)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		for _, c := range strings.Split(parts[1], ",") {
			if c == controller {
				return filepath.Join("/sys/fs/cgroup", controller, parts[2]), false
			}
		}
		if parts[1] == "" {
			dir = filepath.Join("/sys/fs/cgroup", parts[2])
		}
	}
	if dir == "" {
		t.Fatalf("process %d has no cgroup: %s", pid, body)
	}
	return dir, true
}

// stateOf is the letter of a process's state.
func stateOf(t *testing.T, pid int) string {
	t.Helper()
	body, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(body), ") ")
	state, _, _ := strings.Cut(after, " ")
	return state
}
