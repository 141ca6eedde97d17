package oci

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	rspec "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// maxProfile bounds a seccomp profile, in bytes.
const maxProfile = 4 << 20

// PrepareOptions are what Prepare and PrepareSandbox take from the configuration.
type PrepareOptions struct {
	// SeccompProfile is the path of the profile for RuntimeDefault; "" is the built-in one.
	SeccompProfile string
	// WithoutHostDevices leaves the node's devices out of HostFacts.AllDevices.
	WithoutHostDevices bool
}

// Prepare reads from the host's files what ContainerSpec needs of them. A
// host path of a mount that does not exist is made, as a directory: that is
// what users of the kubelet and of other CRI daemons have come to expect.
// The error's kind is Invalid if the request names what does not exist, and
// Precondition for a propagation that the host's mount does not allow.
func Prepare(config *runtimeapi.ContainerConfig, o PrepareOptions) (HostFacts, error) {
	var facts HostFacts
	var err error
	if facts.Mounts, err = prepareMounts(config.GetMounts()); err != nil {
		return HostFacts{}, err
	}
	for _, d := range config.GetDevices() {
		nodes, err := deviceNodes(d)
		if err != nil {
			return HostFacts{}, err
		}
		facts.Devices = append(facts.Devices, nodes)
	}
	sc := config.GetLinux().GetSecurityContext()
	if sc.GetPrivileged() {
		if o.WithoutHostDevices {
			return facts, nil
		}
		facts.AllDevices, err = hostDevices("/dev")
		return facts, err
	}
	facts.Seccomp, err = loadSeccomp(containerSeccomp(sc), o)
	return facts, err
}

// PrepareSandbox reads the seccomp profile of a pause container, for
// SandboxInput.Seccomp.
func PrepareSandbox(config *runtimeapi.PodSandboxConfig, o PrepareOptions) ([]byte, error) {
	sc := config.GetLinux().GetSecurityContext()
	if sc.GetPrivileged() {
		return nil, nil
	}
	return loadSeccomp(sandboxSeccomp(sc), o)
}

// loadSeccomp reads the file that the profile stands for; nil if it stands
// for none.
func loadSeccomp(profile *runtimeapi.SecurityProfile, o PrepareOptions) ([]byte, error) {
	path := ""
	switch profile.GetProfileType() {
	case runtimeapi.SecurityProfile_RuntimeDefault:
		if o.SeccompProfile == "" {
			return nil, nil
		}
		path = o.SeccompProfile
	case runtimeapi.SecurityProfile_Localhost:
		path = localhostRef(profile.GetLocalhostRef())
	default:
		return nil, nil
	}
	if !filepath.IsAbs(path) {
		return nil, invalid("seccomp profile %q: not an absolute path", path)
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, invalid("seccomp profile: %w", err)
	}
	if !info.Mode().IsRegular() || info.Size() > maxProfile {
		return nil, invalid("seccomp profile %s: not a regular file of at most %d bytes", path, maxProfile)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("seccomp profile: %w", err)
	}
	return text, nil
}

// prepareMounts returns the real host path of each mount, "" for an image.
func prepareMounts(mounts []*runtimeapi.Mount) ([]string, error) {
	var paths []string
	for _, m := range mounts {
		if m.GetImage().GetImage() == "" && m.GetImageSubPath() != "" {
			return nil, invalid("mount %s: image_sub_path is set without an image", m.GetContainerPath())
		}
		if m.GetImage().GetImage() != "" {
			if m.GetHostPath() != "" {
				return nil, invalid("mount %s: both an image and host_path are set", m.GetContainerPath())
			}
			paths = append(paths, "")
			continue
		}
		path, err := HostPath(m)
		if err != nil {
			return nil, err
		}
		if err := checkPropagation(m, path); err != nil {
			return nil, err
		}
		paths = append(paths, path)
	}
	return paths, nil
}

// HostPath follows the links of a mount's host path, and makes a directory
// there if there is nothing. The error's kind is Invalid.
func HostPath(m *runtimeapi.Mount) (string, error) {
	path := m.GetHostPath()
	if !filepath.IsAbs(path) {
		return "", invalid("mount %s: host_path %q is not absolute", m.GetContainerPath(), path)
	}
	real, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(path, 0o755); err != nil {
			return "", invalid("mount %s: host_path does not exist and can't be made: %w", m.GetContainerPath(), err)
		}
		real, err = filepath.EvalSymlinks(path)
	}
	if err != nil {
		return "", invalid("mount %s: host_path: %w", m.GetContainerPath(), err)
	}
	return real, nil
}

// deviceNodes finds the nodes of a device, with the paths that they get in
// the container. A directory stands for all device nodes below it.
func deviceNodes(d *runtimeapi.Device) ([]rspec.LinuxDevice, error) {
	if !filepath.IsAbs(d.GetHostPath()) {
		return nil, invalid("device: host_path %q is not absolute", d.GetHostPath())
	}
	target := d.GetContainerPath()
	if target == "" {
		target = d.GetHostPath()
	}
	real, err := filepath.EvalSymlinks(d.GetHostPath())
	if err != nil {
		return nil, invalid("device: %w", err)
	}
	var found []rspec.LinuxDevice
	err = filepath.WalkDir(real, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		node, ok, err := deviceNode(path)
		if err == nil && ok {
			node.Path = filepath.Join("/", target, strings.TrimPrefix(path, real))
			found = append(found, node)
		}
		return err
	})
	if err != nil {
		return nil, invalid("device %s: %w", d.GetHostPath(), err)
	}
	if len(found) == 0 {
		return nil, invalid("device %s: neither a device nor a directory with devices", d.GetHostPath())
	}
	return found, nil
}

// deviceNode describes the device node at path; false if it is none.
func deviceNode(path string) (rspec.LinuxDevice, bool, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return rspec.LinuxDevice{}, false, &fs.PathError{Op: "lstat", Path: path, Err: err}
	}
	kind := ""
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFCHR:
		kind = "c"
	case unix.S_IFBLK:
		kind = "b"
	default:
		return rspec.LinuxDevice{}, false, nil
	}
	mode := os.FileMode(st.Mode & 0o7777)
	return rspec.LinuxDevice{
		Path: path, Type: kind,
		Major: int64(unix.Major(st.Rdev)), Minor: int64(unix.Minor(st.Rdev)),
		FileMode: &mode, UID: &st.Uid, GID: &st.Gid,
	}, true, nil
}

// skippedDevices are entries of /dev that every container has its own of.
var skippedDevices = []string{"pts", "shm", "fd", "mqueue", "console", ".udev", ".lxc", ".lxd-mounts"}

// hostDevices lists the device nodes below dir, the node's /dev. What
// vanishes while it is listed is left out.
func hostDevices(dir string) ([]rspec.LinuxDevice, error) {
	var found []rspec.LinuxDevice
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if filepath.Dir(path) == dir && slices.Contains(skippedDevices, entry.Name()) {
			if entry.IsDir() {
				return filepath.SkipDir
			}
			return nil
		}
		node, ok, err := deviceNode(path)
		if ok {
			found = append(found, node)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list the node's devices: %w", err)
	}
	return found, nil
}
