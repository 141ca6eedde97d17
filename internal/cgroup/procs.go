package cgroup

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gantry-cri/gantry/internal/node"
)

// Procs lists the processes of the cgroup and of all below it, each once, in
// ascending order. A process counts that is there in any hierarchy. A cgroup
// that does not exist has none.
func Procs(f node.Facts, path string) ([]int, error) {
	var pids []int
	for _, dir := range Paths(f, path) {
		err := walk(dir, func(dir string) error {
			found, err := readProcs(filepath.Join(dir, "cgroup.procs"))
			pids = append(pids, found...)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("list the processes of cgroup %s: %w", path, err)
		}
	}
	slices.Sort(pids)
	return slices.Compact(pids), nil
}

// walk calls do for dir and for every directory below it, parents first.
func walk(dir string, do func(dir string) error) error {
	if err := do(dir); err != nil {
		return err
	}
	children, err := childDirs(dir)
	if err != nil {
		return err
	}
	for _, child := range children {
		if err := walk(child, do); err != nil {
			return err
		}
	}
	return nil
}

// readProcs reads a cgroup.procs file. One that is gone lists none; neither
// does that of a threaded version 2 cgroup, whose processes are listed by the
// cgroup that is the root of its threads.
func readProcs(file string) ([]int, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		if gone(err) || errors.Is(err, unix.EOPNOTSUPP) {
			return nil, nil
		}
		return nil, err
	}
	var pids []int
	for line := range bytes.Lines(text) {
		pid, err := strconv.Atoi(string(bytes.TrimSpace(line)))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		if pid > 0 { // 0 stands for a process of another PID namespace, out of reach
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// populated reads the line "populated 0|1" of a cgroup.events file.
func populated(events string) bool {
	for line := range strings.Lines(events) {
		if strings.TrimSpace(line) == "populated 0" {
			return false
		}
	}
	return true
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
