package testenv

import (
	"cmp"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// managerVariable says who makes the cgroups: cgroupfs (also when it is empty)
// or systemd, where that runs.
const managerVariable = "GANTRY_TEST_CGROUP_MANAGER"

// The cgroup managers, by their names in the daemon's configuration.
const (
	Cgroupfs = "cgroupfs"
	Systemd  = "systemd"
)

// CgroupManager is the cgroup manager of environments that ask for none.
func CgroupManager() string { return cmp.Or(os.Getenv(managerVariable), Cgroupfs) }

// CgroupV2 reports whether the machine has the unified hierarchy only.
func CgroupV2() bool {
	_, err := os.Stat("/sys/fs/cgroup/cgroup.controllers")
	return err == nil
}

// cgroupParent is a name that no other environment has, as a path.
func cgroupParent(manager, name string) string {
	if manager == Systemd {
		return "/" + name + ".slice"
	}
	return "/gantry-test-" + name
}

// Cgroup returns the path of a cgroup beneath CgroupParent for which a test is in
// the kubelet's place, one word for each level. With systemd they are slices.
func (e *Env) Cgroup(words ...string) string {
	if e.CgroupManager != Systemd {
		return e.CgroupParent + "/" + strings.Join(words, "/")
	}
	path, unit := e.CgroupParent, strings.TrimSuffix(e.CgroupParent[1:], ".slice")
	for _, word := range words {
		unit += "-" + word
		path += "/" + unit + ".slice"
	}
	return path
}

// cgroups lists every cgroup below the environment's parent, in every hierarchy.
func (e *Env) cgroups() []string {
	var list []string
	for _, top := range e.cgroupTops() {
		_ = filepath.WalkDir(top, func(path string, entry fs.DirEntry, err error) error {
			if err == nil && entry.IsDir() && path != top {
				list = append(list, path)
			}
			return nil
		})
	}
	return list
}

func (e *Env) cgroupTops() []string {
	tops, _ := filepath.Glob("/sys/fs/cgroup/*" + e.CgroupParent)
	if _, err := os.Stat("/sys/fs/cgroup" + e.CgroupParent); err == nil {
		tops = append(tops, "/sys/fs/cgroup"+e.CgroupParent)
	}
	return tops
}

// units lists the units of systemd below the environment's slice, those included
// that have failed and so have no cgroup.
func (e *Env) units() []string {
	if !e.asksSystemd() {
		return nil
	}
	out, err := exec.Command("systemctl", "show", "--property=Id,Slice", e.Name+"-*.slice", "gantry-*.scope").Output()
	if err != nil {
		return []string{"systemctl show: " + err.Error()}
	}
	var list []string
	for unit := range strings.SplitSeq(string(out), "\n\n") {
		if !strings.Contains(unit, "Slice="+e.Name) {
			continue
		}
		for line := range strings.Lines(unit) {
			if id, ok := strings.CutPrefix(strings.TrimSpace(line), "Id="); ok {
				list = append(list, id)
			}
		}
	}
	return list
}

// asksSystemd reports whether systemd is the cgroup manager, and there: some tests
// are of what happens without it.
func (e *Env) asksSystemd() bool {
	_, err := os.Stat("/run/systemd/system")
	return e.CgroupManager == Systemd && err == nil
}

// stopSlice has systemd forget the slice at a path of the hierarchy, and kill what
// is left in it.
func (e *Env) stopSlice(path string) {
	if e.asksSystemd() {
		_ = exec.Command("systemctl", "stop", filepath.Base(path)).Run()
	}
}

func removeCgroups(top string) {
	var dirs []string
	_ = filepath.WalkDir(top, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			dirs = append(dirs, path)
		}
		return nil
	})
	slices.Reverse(dirs)
	for _, dir := range dirs {
		_ = os.Remove(dir)
	}
}

// RemoveCgroup removes a cgroup that the test made in the kubelet's place, from
// every hierarchy; it fails the test when something is left in it.
func (e *Env) RemoveCgroup(path string) {
	e.t.Helper()
	tops, _ := filepath.Glob("/sys/fs/cgroup/*" + path)
	for _, top := range append(tops, "/sys/fs/cgroup"+path) {
		removeCgroups(top)
		if _, err := os.Stat(top); err == nil {
			e.t.Errorf("cgroup %s can't be removed: something is left in it", top)
		}
	}
	e.stopSlice(path)
}
