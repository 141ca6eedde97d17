// Package node knows what this node can do: its kernel, control groups, Linux
// security modules, and what the daemon itself is allowed to. The facts are
// probed once, at start, and passed on as a value; whoever decides something
// about the node decides it from that value, so that every decision can be
// tested for nodes other than the one at hand.
package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/opencontainers/selinux/go-selinux"
	"golang.org/x/sys/unix"
)

// Facts is what Probe found. It is never changed after.
type Facts struct {
	// CgroupV2 is true where every controller is on the unified hierarchy, mounted at CgroupRoot.
	CgroupV2 bool
	// CgroupRoot is where control groups are mounted: /sys/fs/cgroup.
	CgroupRoot string
	// CgroupV1 maps each version 1 controller to its mount point. A named
	// hierarchy is listed as "name=NAME". It is empty on version 2.
	CgroupV1 map[string]string
	// CgroupUnified is where a hybrid node has the version 2 hierarchy beside
	// those of version 1; "" where there is none.
	CgroupUnified string
	// CgroupControllers are the controllers in use, of either version.
	CgroupControllers map[string]bool
	// OwnCgroups maps each version 1 controller ("" for version 2) to the daemon's own cgroup.
	OwnCgroups map[string]string
	// SwapAccounting is true where a memory cgroup can limit swap.
	SwapAccounting bool
	// PossibleCPUs and PossibleMemoryNodes are all that the node can ever have,
	// as in "0-3"; "" where the kernel does not say.
	PossibleCPUs, PossibleMemoryNodes string
	// HugepageSizes are the page sizes of the hugetlb controller, as in "2MB" and "1GB".
	HugepageSizes []string

	// Bounding is the daemon's own bounding set, as CAP_NAME, in the kernel's
	// order. No container can have a capability outside it.
	Bounding []string
	// Rlimits maps the name of each limit (RLIMIT_NOFILE) to the daemon's own.
	Rlimits map[string]Rlimit
	// CanRaiseLimits is true with CAP_SYS_RESOURCE: hard limits can be raised
	// and the OOM score lowered.
	CanRaiseLimits bool
	// OOMScoreAdj is the daemon's own, the lowest that it can give without CanRaiseLimits.
	OOMScoreAdj int

	// AppArmor, SELinux and Seccomp are true where the kernel has them and they are enabled.
	AppArmor, SELinux, Seccomp bool

	// MountAttributes is true where a mount's attributes can be set with those
	// of all mounts below it (mount_setattr, Linux 5.12).
	MountAttributes bool

	// Kernel is the release, as uname -r prints it.
	Kernel string
	// BootID names this boot of the kernel.
	BootID string
}

// Rlimit is one resource limit; Unlimited stands for none.
type Rlimit struct{ Soft, Hard uint64 }

// Unlimited is RLIM_INFINITY.
const Unlimited = ^uint64(0)

// Probe gathers the facts. It fails only when the node has no usable control
// groups or no /proc.
func Probe() (Facts, error) {
	f := Facts{CgroupRoot: "/sys/fs/cgroup"}
	if err := f.probeKernel(); err != nil {
		return Facts{}, fmt.Errorf("probe the kernel: %w", err)
	}
	if err := f.probeProcess(); err != nil {
		return Facts{}, fmt.Errorf("probe the daemon's own limits: %w", err)
	}
	if err := f.probeCgroups(); err != nil {
		return Facts{}, fmt.Errorf("probe control groups: %w", err)
	}
	return f, nil
}

func (f *Facts) probeKernel() error {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return err
	}
	f.Kernel = unix.ByteSliceToString(u.Release[:])
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return err
	}
	f.BootID = strings.TrimSpace(string(boot))
	f.MountAttributes = hasMountSetattr()
	f.Seccomp = exists("/proc/sys/kernel/seccomp/actions_avail")
	f.SELinux = selinux.GetEnabled()
	enabled, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f.AppArmor = strings.HasPrefix(string(enabled), "Y") && exists("/sys/kernel/security/apparmor")
	return nil
}

func (f *Facts) probeProcess() error {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	bounding, effective, err := parseCapabilities(string(status))
	if err != nil {
		return err
	}
	f.Bounding = capabilityNames(bounding)
	f.CanRaiseLimits = effective&(1<<unix.CAP_SYS_RESOURCE) != 0
	adj, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		return err
	}
	if f.OOMScoreAdj, err = strconv.Atoi(strings.TrimSpace(string(adj))); err != nil {
		return err
	}
	f.Rlimits = make(map[string]Rlimit, len(rlimits))
	for name, resource := range rlimits {
		var l unix.Rlimit
		if err := unix.Getrlimit(resource, &l); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		f.Rlimits[name] = Rlimit{Soft: l.Cur, Hard: l.Max}
	}
	return nil
}

// ClampRlimit brings l down to what this node's daemon can set for the limit
// called name (RLIMIT_NOFILE): without CanRaiseLimits nothing goes above the
// daemon's own hard limit. The second result is true if that changed l.
func (f Facts) ClampRlimit(name string, l Rlimit) (Rlimit, bool) {
	own, known := f.Rlimits[name]
	if f.CanRaiseLimits || !known {
		return l, false
	}
	clamped := Rlimit{Soft: min(l.Soft, own.Hard), Hard: min(l.Hard, own.Hard)}
	return clamped, clamped != l
}

// ClampOOMScoreAdj brings adj into the kernel's range, and up to the lowest
// value that this node's daemon can set.
func (f Facts) ClampOOMScoreAdj(adj int64) int {
	lowest := int64(-1000)
	if !f.CanRaiseLimits {
		lowest = int64(f.OOMScoreAdj)
	}
	return int(min(max(adj, lowest), 1000))
}

// HasCapability reports whether a container can be given the capability name (CAP_X).
func (f Facts) HasCapability(name string) bool {
	for _, c := range f.Bounding {
		if c == name {
			return true
		}
	}
	return false
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// hasMountSetattr asks the kernel for nothing, of no file.
func hasMountSetattr() bool {
	err := unix.MountSetattr(-1, "", unix.AT_EMPTY_PATH, &unix.MountAttr{})
	return !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EPERM)
}
