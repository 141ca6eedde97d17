package oci

import (
	"slices"
	"strconv"
	"strings"
)

// SharesKernel reports whether a container's init is a process of this node's
// kernel, which can be sent signals directly. It is false for runtimes that
// are not known to be of that kind (runsc, kata): those must be asked.
func (r *Runtime) SharesKernel() bool {
	return slices.Contains([]string{"crun", "runc", "youki"}, r.Name())
}

// RecursiveReadOnly reports whether the runtime makes mounts read-only with
// all that is mounted below them (mount option rro). crun has done so for
// longer than it has told its features.
func (r *Runtime) RecursiveReadOnly() bool {
	if f := r.Features(); f != nil {
		return slices.Contains(f.MountOptions, "rro")
	}
	return r.Name() == "crun"
}

// IDMappedMounts reports whether the runtime makes user namespaces, and maps the
// ids of a mount. One that says nothing is not believed: runc before 1.2 leaves
// the mappings of a mount out without a word. crun has mapped for longer than it
// has told its features.
func (r *Runtime) IDMappedMounts() bool {
	p := r.current()
	if p.features == nil {
		return p.name == "crun" && versionAtLeast(p.version, 1, 8)
	}
	l := p.features.Linux
	if l == nil || !slices.Contains(l.Namespaces, "user") || l.MountExtensions == nil || l.MountExtensions.IDMap == nil {
		return false
	}
	enabled := l.MountExtensions.IDMap.Enabled
	return enabled != nil && *enabled
}

// versionAtLeast compares the first two numbers of a version.
func versionAtLeast(version string, major, minor int) bool {
	first, rest, _ := strings.Cut(version, ".")
	second, _, _ := strings.Cut(rest, ".")
	a, errA := strconv.Atoi(first)
	b, errB := strconv.Atoi(second)
	return errA == nil && errB == nil && (a > major || a == major && b >= minor)
}
