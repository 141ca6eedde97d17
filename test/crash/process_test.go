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
	for _, pid := range processesIn(t, "/"+container) {
		if !inside(t, parentOf(t, pid), "/"+container) {
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
