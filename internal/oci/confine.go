package oci

import (
	"strings"

	"github.com/moby/profiles/seccomp"
	rspec "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/internal/node"
	"github.com/gantry-cri/gantry/internal/selinux"
)

// defaultMaskedPaths and defaultReadonlyPaths hide what tells about, or
// changes, the node as a whole.
var (
	defaultMaskedPaths = []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
		"/sys/devices/virtual/powercap", "/sys/firmware",
	}
	defaultReadonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)

// setPaths masks paths and makes paths read-only. The kubelet sends both
// lists, and sends both empty for a container whose /proc is to be unmasked,
// which it accepts only in pods with a user namespace. Elsewhere two empty
// lists come from a client that has no opinion, and get the default.
func (s *containerSpec) setPaths() error {
	masked, readonly := s.sc.GetMaskedPaths(), s.sc.GetReadonlyPaths()
	switch {
	case s.privileged():
		return nil
	case len(masked) == 0 && len(readonly) == 0 && !s.userNamespace():
		masked, readonly = defaultMaskedPaths, defaultReadonlyPaths
	}
	for _, path := range masked {
		if !strings.HasPrefix(path, "/") {
			return invalid("masked_paths: %q is not absolute", path)
		}
		s.AddLinuxMaskedPaths(path)
	}
	for _, path := range readonly {
		if !strings.HasPrefix(path, "/") {
			return invalid("readonly_paths: %q is not absolute", path)
		}
		s.AddLinuxReadonlyPaths(path)
	}
	return nil
}

func (s *containerSpec) userNamespace() bool {
	userns := s.in.Sandbox.GetLinux().GetSecurityContext().GetNamespaceOptions().GetUsernsOptions()
	return userns != nil && userns.GetMode() == runtimeapi.NamespaceMode_POD
}

// setConfinement applies seccomp, AppArmor and SELinux. None of them confines
// a privileged container, unless it asks for an SELinux label.
func (s *containerSpec) setConfinement() error {
	setLabels(s.Config, s.in.SELinux)
	if s.privileged() {
		return nil
	}
	var err error
	s.Config.Linux.Seccomp, err = seccompFilter(containerSeccomp(s.sc), s.in.Host.Seccomp, s.in.Node, s.Config)
	if err != nil {
		return err
	}
	s.Config.Process.ApparmorProfile, err = apparmorProfile(containerApparmor(s.sc), s.in.AppArmorDefault, s.in.Node)
	return err
}

// containerSeccomp is the profile that the request asks for. Asking for none
// means none: the kubelet always says what it wants.
func containerSeccomp(sc *runtimeapi.LinuxContainerSecurityContext) *runtimeapi.SecurityProfile {
	if sc.GetSeccomp() != nil {
		return sc.GetSeccomp()
	}
	//lint:ignore SA1019 old clients still set it
	return profileOf(sc.GetSeccompProfilePath())
}

func containerApparmor(sc *runtimeapi.LinuxContainerSecurityContext) *runtimeapi.SecurityProfile {
	if sc.GetApparmor() != nil {
		return sc.GetApparmor()
	}
	//lint:ignore SA1019 old clients still set it
	if old := sc.GetApparmorProfile(); old != "" {
		return profileOf(old)
	}
	return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}
}

// profileOf reads a profile in the words of the fields that came before
// SecurityProfile: runtime/default, unconfined, localhost/REF; "" is unconfined.
func profileOf(old string) *runtimeapi.SecurityProfile {
	switch old {
	case "", "unconfined":
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}
	case "runtime/default", "docker/default":
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}
	}
	return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: localhostRef(old)}
}

func localhostRef(ref string) string { return strings.TrimPrefix(ref, "localhost/") }

// seccompFilter makes the filter that a profile asks for. content is the
// profile's text, nil for the built-in default. What the profile allows can
// depend on the capabilities in spec, which must be set by now. A kernel
// without seccomp runs what has the default profile without any.
func seccompFilter(profile *runtimeapi.SecurityProfile, content []byte, n node.Facts, spec *rspec.Spec) (*rspec.LinuxSeccomp, error) {
	kind := profile.GetProfileType()
	switch kind {
	case runtimeapi.SecurityProfile_Unconfined:
		return nil, nil
	case runtimeapi.SecurityProfile_RuntimeDefault:
		if !n.Seccomp {
			return nil, nil
		}
	case runtimeapi.SecurityProfile_Localhost:
		if !n.Seccomp {
			return nil, unsupported("seccomp profile %s: this kernel has no seccomp", profile.GetLocalhostRef())
		}
		if content == nil {
			return nil, invalid("seccomp profile %s: it was not read", profile.GetLocalhostRef())
		}
	default:
		return nil, invalid("seccomp: unknown profile type %d", kind)
	}
	if content == nil {
		return seccomp.GetDefaultProfile(spec)
	}
	filter, err := seccomp.LoadProfile(string(content), spec)
	if err != nil {
		return nil, invalid("seccomp profile %s: %w", profile.GetLocalhostRef(), err)
	}
	return filter, nil
}

// apparmorProfile is the name of the profile to run under; "" is whatever the
// kernel applies by itself. byDefault is that of RuntimeDefault, which a kernel
// without AppArmor runs without any.
func apparmorProfile(profile *runtimeapi.SecurityProfile, byDefault string, n node.Facts) (string, error) {
	switch kind := profile.GetProfileType(); kind {
	case runtimeapi.SecurityProfile_RuntimeDefault:
		if n.AppArmor {
			return byDefault, nil
		}
		return "", nil
	case runtimeapi.SecurityProfile_Unconfined:
		if n.AppArmor {
			return "unconfined", nil
		}
		return "", nil
	case runtimeapi.SecurityProfile_Localhost:
		name := localhostRef(profile.GetLocalhostRef())
		if name == "" {
			return "", invalid("apparmor: a Localhost profile without a name")
		}
		if !n.AppArmor {
			return "", unsupported("apparmor profile %q: AppArmor is not enabled on this node", name)
		}
		return name, nil
	default:
		return "", invalid("apparmor: unknown profile type %d", kind)
	}
}

// setLabels sets the label of the process, and that of the file systems that
// the runtime mounts.
func setLabels(spec *rspec.Spec, l selinux.Labels) {
	spec.Process.SelinuxLabel, spec.Linux.MountLabel = l.Process, l.Mount
}
