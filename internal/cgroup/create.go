package cgroup

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gantry-cri/gantry/internal/node"
)

// Create makes the cgroup and its parents in every hierarchy. A cgroup that
// exists is no error. On version 1 a fresh cpuset gets its parent's CPUs and
// memory nodes, without which no process can enter it; on version 2 the
// parents hand down every controller that they can.
func Create(f node.Facts, path string) error {
	var errs []error
	for _, root := range roots(f) {
		if err := createIn(f, root, Clean(path)); err != nil {
			errs = append(errs, fmt.Errorf("create cgroup %s: %w", path, err))
		}
	}
	return errors.Join(errs...)
}

// createIn makes the cgroup and its parents in the hierarchy mounted at root.
func createIn(f node.Facts, root, path string) error {
	cpuset := root == f.CgroupV1["cpuset"]
	if !cpuset && !f.CgroupV2 {
		return os.MkdirAll(filepath.Join(root, path), 0o755)
	}
	dir := root
	for _, name := range strings.Split(strings.Trim(path, "/"), "/") {
		parent := dir
		dir = filepath.Join(dir, name)
		if f.CgroupV2 {
			if err := delegate(parent); err != nil {
				return err
			}
		}
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
		if cpuset {
			if err := inheritCpuset(parent, dir); err != nil {
				return err
			}
		}
	}
	return nil
}

// inheritCpuset fills what is empty of dir's cpuset from parent's.
func inheritCpuset(parent, dir string) error {
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		own, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			return err
		}
		if len(bytes.TrimSpace(own)) != 0 {
			continue
		}
		inherited, err := os.ReadFile(filepath.Join(parent, file))
		if err != nil {
			return err
		}
		if err := write(filepath.Join(dir, file), string(inherited)); err != nil {
			return err
		}
	}
	return nil
}

// delegate enables all of dir's version 2 controllers for its children. One
// that the kernel won't hand down now (dir has processes of its own, or is
// threaded, or has real-time processes) is left out: a runtime that needs it
// for a limit will say so.
func delegate(dir string) error {
	available, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return err
	}
	file := filepath.Join(dir, "cgroup.subtree_control")
	current, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	enabled := strings.Fields(string(current))
	for _, controller := range missing(strings.Fields(string(available)), enabled) {
		err := write(file, "+"+controller)
		if err != nil && !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EINVAL) {
			return err
		}
	}
	return nil
}

// missing lists what of want is not in have.
func missing(want, have []string) []string {
	set := make(map[string]bool, len(have))
	for _, h := range have {
		set[h] = true
	}
	var out []string
	for _, w := range want {
		if !set[w] {
			out = append(out, w)
		}
	}
	return out
}
