// Package cgroup makes, empties and removes control groups, on version 1 (one
// directory in each hierarchy) and version 2 (one directory).
//
// A cgroup is named by its path below the root of every hierarchy, as in
// /gantry/<pod>. A path never leads above that root: see Clean.
package cgroup

import (
	"path/filepath"
	"slices"
	"strings"

	"github.com/gantry-cri/gantry/internal/node"
)

// Clean makes path absolute and resolves its dots lexically, so that no path
// of a request names anything above the root: "../../x" is "/x". Every
// function of this package cleans the path it is given.
func Clean(path string) string { return filepath.Join("/", path) }

// Paths are the directories of the cgroup, whether they exist or not: one for
// each version 1 hierarchy, and the one of version 2 (also that of a hybrid
// node), sorted.
func Paths(f node.Facts, path string) []string {
	var dirs []string
	for _, root := range roots(f) {
		dirs = append(dirs, filepath.Join(root, Clean(path)))
	}
	return dirs
}

// roots are the mount points of all hierarchies, each once, sorted.
func roots(f node.Facts) []string {
	if f.CgroupV2 {
		return []string{f.CgroupRoot}
	}
	var dirs []string
	for _, dir := range f.CgroupV1 {
		dirs = append(dirs, dir)
	}
	if f.CgroupUnified != "" {
		dirs = append(dirs, f.CgroupUnified)
	}
	slices.Sort(dirs)
	return slices.Compact(dirs)
}

// ProcsFiles are the files that list the processes of the cgroup itself (not
// of cgroups below it), one for each directory of Paths.
func ProcsFiles(f node.Facts, path string) []string {
	files := Paths(f, path)
	for i := range files {
		files[i] = filepath.Join(files[i], "cgroup.procs")
	}
	return files
}

// MemoryEventsFile is the file whose line "oom_kill N" counts the processes
// that the kernel killed in the cgroup for want of memory: memory.events on
// version 2, memory.oom_control on version 1; "" without a memory controller.
func MemoryEventsFile(f node.Facts, path string) string {
	if f.CgroupV2 {
		return filepath.Join(f.CgroupRoot, Clean(path), "memory.events")
	}
	if memory, ok := f.CgroupV1["memory"]; ok {
		return filepath.Join(memory, Clean(path), "memory.oom_control")
	}
	return ""
}

// isRoot reports whether path names the root of the hierarchies, which is
// never ours to remove or to empty.
func isRoot(path string) bool { return Clean(path) == "/" }

// holdsDaemon reports whether the daemon itself runs in the cgroup or below it.
func holdsDaemon(f node.Facts, path string) bool {
	path = Clean(path)
	for _, own := range f.OwnCgroups {
		if own == path || strings.HasPrefix(own, path+"/") {
			return true
		}
	}
	return false
}
