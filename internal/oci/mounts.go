package oci

import (
	"path/filepath"
	"slices"
	"strings"

	rspec "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// The mounts of Linux containers that the OCI runtime specification expects.
// See https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#default-filesystems
var (
	mountProc = rspec.Mount{
		Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"},
	}
	mountDev = rspec.Mount{
		Destination: "/dev", Type: "tmpfs", Source: "tmpfs",
		Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"},
	}
	mountPts = rspec.Mount{
		Destination: "/dev/pts", Type: "devpts", Source: "devpts",
		Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"},
	}
	mountMqueue = rspec.Mount{
		Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"},
	}
	mountSys = rspec.Mount{
		Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev"},
	}
	mountCgroup = rspec.Mount{
		Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup",
		Options: []string{"nosuid", "noexec", "nodev", "relatime"},
	}
)

// cleanPath makes a path of a container absolute and resolves its dots.
func cleanPath(path string) string { return filepath.Join("/", path) }

// setMounts sets all mounts, parents before what is mounted below them. A
// mount of the request replaces the one that every container has at the same
// place; one over /dev, /proc or /sys also what every container has below.
func (s *containerSpec) setMounts() error {
	requested, err := s.requestedMounts()
	if err != nil {
		return err
	}
	mounts := slices.DeleteFunc(s.ownMounts(), func(own rspec.Mount) bool {
		return slices.ContainsFunc(requested, func(m rspec.Mount) bool { return hides(m.Destination, own.Destination) })
	})
	mounts = append(mounts, requested...)
	slices.SortStableFunc(mounts, func(a, b rspec.Mount) int { return depth(a.Destination) - depth(b.Destination) })
	for _, m := range mounts {
		s.AddMount(m)
	}
	return s.setRootPropagation()
}

// hides reports whether a requested mount at over makes the container's own
// mount at path pointless.
func hides(over, path string) bool {
	if over == path {
		return true
	}
	return slices.Contains([]string{"/dev", "/proc", "/sys"}, over) && strings.HasPrefix(path, over+"/")
}

func depth(path string) int {
	if path == "/" {
		return 0
	}
	return strings.Count(path, "/")
}

// ownMounts are what the container has without asking.
func (s *containerSpec) ownMounts() []rspec.Mount {
	access := "ro"
	if s.privileged() {
		access = "rw"
	}
	sys := mountSys
	if s.userns != nil && s.in.Join.Network == Host {
		// A user namespace can mount sysfs for a network namespace of its own only.
		sys = bind("/sys", "/sys", "nosuid", "noexec", "nodev")
	}
	mounts := []rspec.Mount{
		mountProc, mountDev, mountPts, mountMqueue, withOption(sys, access), withOption(mountCgroup, access),
	}
	if s.in.Shm != "" {
		mounts = append(mounts, bind("/dev/shm", s.in.Shm, "nosuid", "noexec", "nodev", "rw"))
	} else {
		mounts = append(mounts, tmpfsShm(0))
	}
	access = "rw"
	if s.sc.GetReadonlyRootfs() {
		access = "ro"
	}
	for _, file := range []struct{ path, source string }{
		{"/etc/resolv.conf", s.in.ResolvConf}, {"/etc/hostname", s.in.Hostname}, {"/etc/hosts", s.in.Hosts},
	} {
		if file.source != "" {
			mounts = append(mounts, bind(file.path, file.source, "nosuid", "noexec", "nodev", access))
		}
	}
	return mounts
}

func withOption(m rspec.Mount, options ...string) rspec.Mount {
	m.Options = slices.Concat(m.Options, options)
	return m
}

func bind(path, source string, options ...string) rspec.Mount {
	return rspec.Mount{
		Destination: path, Type: "bind", Source: source, Options: append([]string{"rbind", "rprivate"}, options...),
	}
}

// requestedMounts are those of the request, checked. Of two at the same place
// the later one lies on top, as with mount(8).
func (s *containerSpec) requestedMounts() ([]rspec.Mount, error) {
	var mounts []rspec.Mount
	for i, m := range s.in.Config.GetMounts() {
		path := m.GetContainerPath()
		if !filepath.IsAbs(path) || cleanPath(path) == "/" {
			return nil, invalid("mounts: container_path %q is not an absolute path below the root", path)
		}
		if err := s.checkMount(m); err != nil {
			return nil, err
		}
		if i >= len(s.in.Host.Mounts) || s.in.Host.Mounts[i] == "" {
			return nil, invalid("mount %s: image %s was not found", path, m.GetImage().GetImage())
		}
		options, err := mountOptions(m)
		if err != nil {
			return nil, err
		}
		mount := rspec.Mount{Destination: cleanPath(path), Type: "bind", Source: s.in.Host.Mounts[i], Options: options}
		if m.GetImage().GetImage() == "" { // the ids of an image's layers are mapped already
			mount.UIDMappings, mount.GIDMappings = mappingsOf(m.GetUidMappings()), mappingsOf(m.GetGidMappings())
		}
		mounts = append(mounts, mount)
	}
	return mounts, nil
}

func mappingsOf(mappings []*runtimeapi.IDMapping) []rspec.LinuxIDMapping {
	var out []rspec.LinuxIDMapping
	for _, m := range mappings {
		out = append(out, rspec.LinuxIDMapping{ContainerID: m.GetContainerId(), HostID: m.GetHostId(), Size: m.GetLength()})
	}
	return out
}

func (s *containerSpec) checkMount(m *runtimeapi.Mount) error {
	path := m.GetContainerPath()
	switch {
	case m.GetImage().GetImage() != "" && m.GetPropagation() != runtimeapi.MountPropagation_PROPAGATION_PRIVATE:
		return invalid("mount %s: an image needs private propagation, not %s", path, m.GetPropagation())
	case !m.GetRecursiveReadOnly():
	case !m.GetReadonly():
		return invalid("mount %s: recursive_read_only needs readonly", path)
	case m.GetPropagation() != runtimeapi.MountPropagation_PROPAGATION_PRIVATE:
		return invalid("mount %s: recursive_read_only needs private propagation, not %s", path, m.GetPropagation())
	case !s.in.Can.RecursiveReadOnly:
		return unsupported("mount %s: this runtime, or this kernel, can't make a mount recursively read-only", path)
	}
	return s.checkMountIDs(m)
}

// checkMountIDs refuses mappings of a mount that the runtime would not apply.
func (s *containerSpec) checkMountIDs(m *runtimeapi.Mount) error {
	path, uids, gids := m.GetContainerPath(), m.GetUidMappings(), m.GetGidMappings()
	switch {
	case len(uids) == 0 && len(gids) == 0:
		return nil
	case len(uids) == 0 || len(gids) == 0:
		return invalid("mount %s: uidMappings and gidMappings go together", path)
	case s.userns == nil:
		return invalid("mount %s: uidMappings need a pod with a user namespace", path)
	case !s.in.Can.IDMappedMounts:
		return unsupported("mount %s: this runtime can't map the ids of a mount", path)
	}
	for _, mapping := range slices.Concat(uids, gids) {
		if err := checkMapping("mount "+path, mapping); err != nil {
			return err
		}
	}
	if m.GetImage().GetImage() == "" {
		return nil
	}
	own, err := ParseUserNamespace(&runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_POD, Uids: uids, Gids: gids})
	if err != nil || *own != *s.userns {
		return invalid("mount %s: the mappings of an image must be those of the pod", path)
	}
	return nil
}

// knownMountOptions are what mount_options can hold: what a bind mount can
// change on its own.
var knownMountOptions = []string{
	"noexec", "exec", "nodev", "dev", "nosuid", "suid",
	"noatime", "atime", "nodiratime", "diratime", "relatime", "norelatime", "strictatime", "nostrictatime",
	"nosymfollow", "symfollow",
}

var propagations = map[runtimeapi.MountPropagation]string{
	runtimeapi.MountPropagation_PROPAGATION_PRIVATE:           "rprivate",
	runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER: "rslave",
	runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL:     "rshared",
}

func mountOptions(m *runtimeapi.Mount) ([]string, error) {
	propagation, ok := propagations[m.GetPropagation()]
	if !ok {
		return nil, invalid("mount %s: unknown propagation %d", m.GetContainerPath(), m.GetPropagation())
	}
	options := []string{"rbind", propagation}
	switch {
	case m.GetImage().GetImage() != "": // whatever the request says
		options = append(options, "ro", "noexec", "nosuid", "nodev")
	case m.GetRecursiveReadOnly():
		options = append(options, "ro", "rro")
	case m.GetReadonly():
		options = append(options, "ro")
	default:
		options = append(options, "rw")
	}
	for _, o := range m.GetMountOptions() {
		if !slices.Contains(knownMountOptions, o) {
			return nil, invalid("mount %s: unknown mount option %q", m.GetContainerPath(), o)
		}
		options = append(options, o)
	}
	return options, nil
}

// setRootPropagation keeps the container's mounts connected to the node's as
// far as one of them asks for it; without that, the runtime's own choice stands.
func (s *containerSpec) setRootPropagation() error {
	propagation := ""
	for _, m := range s.in.Config.GetMounts() {
		switch m.GetPropagation() {
		case runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL:
			return s.SetLinuxRootPropagation("rshared")
		case runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER:
			propagation = "rslave"
		}
	}
	if propagation == "" {
		return nil
	}
	return s.SetLinuxRootPropagation(propagation)
}
