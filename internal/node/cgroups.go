package node

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

func (f *Facts) probeCgroups() error {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return err
	}
	f.OwnCgroups = parseOwnCgroups(string(own))
	unified := f.setHierarchies(parseCgroupMounts(string(mounts)))
	if f.CgroupV2 {
		controllers, err := os.ReadFile(filepath.Join(unified, "cgroup.controllers"))
		if err != nil {
			return err
		}
		for _, c := range strings.Fields(string(controllers)) {
			f.CgroupControllers[c] = true
		}
	} else if len(f.CgroupV1) == 0 {
		return errors.New("no control group hierarchy is mounted")
	}
	f.SwapAccounting = f.probeSwapAccounting()
	if f.PossibleCPUs, err = firstLine("/sys/devices/system/cpu/possible"); err != nil {
		return err
	}
	if f.PossibleMemoryNodes, err = firstLine("/sys/devices/system/node/possible"); err != nil {
		return err
	}
	f.HugepageSizes, err = hugepageSizes()
	return err
}

// setHierarchies sorts the mounts into the facts and returns the mount point
// of the unified hierarchy, "" if there is none.
func (f *Facts) setHierarchies(mounts []cgroupMount) (unified string) {
	f.CgroupV1 = map[string]string{}
	f.CgroupControllers = map[string]bool{}
	for _, m := range mounts {
		if m.unified {
			if unified == "" {
				unified = m.dir
			}
			continue
		}
		for _, c := range m.controllers {
			if _, seen := f.CgroupV1[c]; seen {
				continue
			}
			f.CgroupV1[c] = m.dir
			if !strings.HasPrefix(c, "name=") {
				f.CgroupControllers[c] = true
			}
		}
	}
	f.CgroupV2 = unified != "" && len(f.CgroupControllers) == 0
	if f.CgroupV2 {
		f.CgroupV1, f.CgroupRoot = nil, unified
	} else {
		f.CgroupUnified = unified
	}
	return unified
}

type cgroupMount struct {
	dir         string
	unified     bool
	controllers []string // version 1: of this hierarchy, "name=X" for a name
}

// mountFlags are the super block options of a version 1 hierarchy that are no controllers.
var mountFlags = []string{"rw", "ro", "xattr", "clone_children", "noprefix", "cpuset_v2_mode", "favordynmods"}

// parseCgroupMounts finds the hierarchies in the text of /proc/PID/mountinfo.
// See proc_pid_mountinfo(5) for its format.
func parseCgroupMounts(mountinfo string) []cgroupMount {
	var found []cgroupMount
	for line := range strings.Lines(mountinfo) {
		before, after, ok := strings.Cut(line, " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !ok || len(left) < 5 || len(right) < 3 {
			continue
		}
		m := cgroupMount{dir: left[4], unified: right[0] == "cgroup2"}
		if right[0] != "cgroup" && !m.unified {
			continue
		}
		for _, option := range strings.Split(right[2], ",") {
			if !m.unified && !slices.Contains(mountFlags, option) && !strings.HasPrefix(option, "release_agent=") {
				m.controllers = append(m.controllers, option)
			}
		}
		found = append(found, m)
	}
	return found
}

// parseOwnCgroups reads /proc/PID/cgroup: controller (or "name=X", or "" for
// version 2) to cgroup.
func parseOwnCgroups(text string) map[string]string {
	own := map[string]string{}
	for line := range strings.Lines(text) {
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(fields) != 3 {
			continue
		}
		for _, controller := range strings.Split(fields[1], ",") {
			own[controller] = fields[2]
		}
	}
	return own
}

// probeSwapAccounting looks for the file that limits swap. On version 2 the
// root has none, so the daemon's own cgroup and the first level are looked at.
func (f *Facts) probeSwapAccounting() bool {
	if !f.CgroupV2 {
		memory, ok := f.CgroupV1["memory"]
		return ok && exists(filepath.Join(memory, "memory.memsw.limit_in_bytes"))
	}
	if exists(filepath.Join(f.CgroupRoot, f.OwnCgroups[""], "memory.swap.max")) {
		return true
	}
	found, err := filepath.Glob(filepath.Join(f.CgroupRoot, "*", "memory.swap.max"))
	return err == nil && len(found) > 0
}

// hugepageSizes lists the sizes that the kernel offers, in the words of the CRI.
func hugepageSizes() ([]string, error) {
	entries, err := os.ReadDir("/sys/kernel/mm/hugepages")
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var sizes []string
	for _, e := range entries {
		var kib int64
		if _, err := fmt.Sscanf(e.Name(), "hugepages-%dkB", &kib); err == nil {
			sizes = append(sizes, hugepageSize(kib))
		}
	}
	return sizes, nil
}

// hugepageSize writes a page size as the hugetlb controller names its files.
func hugepageSize(kib int64) string {
	switch {
	case kib >= 1<<20 && kib%(1<<20) == 0:
		return fmt.Sprintf("%dGB", kib>>20)
	case kib >= 1<<10 && kib%(1<<10) == 0:
		return fmt.Sprintf("%dMB", kib>>10)
	}
	return fmt.Sprintf("%dKB", kib)
}

// firstLine reads a file of one line; one that does not exist reads as "".
func firstLine(file string) (string, error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	return strings.TrimSpace(string(text)), err
}
