package oci

import (
	"slices"
	"strconv"

	rspec "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-tools/generate"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// pauseOOMScoreAdj makes the kernel spare the process that holds the pod's
// namespaces longer than almost any other: it uses next to no memory.
const pauseOOMScoreAdj = -998

// sandboxSpec is the specification of a pause container under construction.
type sandboxSpec struct {
	generate.Generator
	in SandboxInput
	sc *runtimeapi.LinuxSandboxSecurityContext // may be nil
}

// SandboxSpec makes the specification of a pod's pause container: it holds
// the pod's namespaces and /dev/shm, carries its sysctls, and can do nothing.
// The kinds of the error are as with ContainerSpec.
func SandboxSpec(in SandboxInput) (*rspec.Spec, error) {
	s := &sandboxSpec{
		Generator: newGenerator(in.OCIVersion, in.RootFS, in.CgroupsPath),
		in:        in,
		sc:        in.Config.GetLinux().GetSecurityContext(),
	}
	for _, part := range []func() error{
		s.setProcess, s.setNamespaces, s.setMounts, s.setSysctls, s.setConfinement, s.setAnnotations,
	} {
		if err := part(); err != nil {
			return nil, err
		}
	}
	return s.Config, nil
}

func (s *sandboxSpec) setProcess() error {
	if len(s.in.Args) == 0 {
		return invalid("the pause container has no command")
	}
	s.SetProcessArgs(s.in.Args)
	s.SetProcessCwd(cleanPath(s.in.Cwd))
	s.SetProcessNoNewPrivileges(true)
	s.SetProcessOOMScoreAdj(s.in.Node.ClampOOMScoreAdj(pauseOOMScoreAdj))
	s.SetRootReadonly(true)
	setUser(&s.Generator, s.in.User)
	s.Config.Process.Env = slices.Clone(s.in.Env)
	s.Config.Process.Capabilities = &rspec.LinuxCapabilities{}
	s.AddLinuxResourcesDevice(false, "", nil, nil, "rwm")
	return nil
}

func (s *sandboxSpec) hostNetwork() bool {
	return !s.in.NewNetNS && (s.in.NetNS == "" || s.in.NetNS == Host)
}

func (s *sandboxSpec) options() *runtimeapi.NamespaceOption { return s.sc.GetNamespaceOptions() }

// setNamespaces creates the pod's namespaces. The PID namespace is the one
// that containers join if the pod shares it; the pause container has one of
// its own otherwise as well.
func (s *sandboxSpec) setNamespaces() error {
	userns, err := PodUserNamespace(s.options())
	if err != nil {
		return err
	}
	setUserNamespace(s.Config, userns, "")
	j := Namespaces{Network: s.in.NetNS}
	if s.hostNetwork() {
		j.Network, j.UTS = Host, Host
	} else {
		s.SetHostname(s.in.Hostname)
	}
	if s.in.NewNetNS {
		j.Network = ""
	}
	if s.options().GetIpc() == runtimeapi.NamespaceMode_NODE {
		j.IPC = Host
	}
	if s.options().GetPid() == runtimeapi.NamespaceMode_NODE {
		j.PID = Host
	}
	return setNamespaces(&s.Generator, j)
}

// setMounts mounts what a runtime needs to set a container up, and the pod's
// /dev/shm.
func (s *sandboxSpec) setMounts() error {
	s.AddMount(mountProc)
	s.AddMount(mountDev)
	if s.options().GetIpc() != runtimeapi.NamespaceMode_NODE {
		s.AddMount(tmpfsShm(s.in.ShmSize))
	}
	for _, path := range defaultMaskedPaths {
		s.AddLinuxMaskedPaths(path)
	}
	for _, path := range defaultReadonlyPaths {
		s.AddLinuxReadonlyPaths(path)
	}
	return nil
}

const defaultShmSize = 64 << 20

// tmpfsShm is a /dev/shm of the given size in bytes; 0 is the default.
func tmpfsShm(size int64) rspec.Mount {
	if size <= 0 {
		size = defaultShmSize
	}
	return rspec.Mount{
		Destination: "/dev/shm", Type: "tmpfs", Source: "shm",
		Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=" + strconv.FormatInt(size, 10)},
	}
}

func (s *sandboxSpec) setSysctls() error {
	for given, value := range s.in.Config.GetLinux().GetSysctls() {
		name, err := checkSysctl(given, sysctlScope{
			hostNetwork: s.hostNetwork(),
			hostIPC:     s.options().GetIpc() == runtimeapi.NamespaceMode_NODE,
		})
		if err != nil {
			return err
		}
		s.AddLinuxSysctl(name, value)
	}
	return nil
}

func (s *sandboxSpec) setConfinement() error {
	setLabels(s.Config, s.in.SELinux)
	if s.sc.GetPrivileged() {
		return nil
	}
	var err error
	s.Config.Linux.Seccomp, err = seccompFilter(sandboxSeccomp(s.sc), s.in.Seccomp, s.in.Node, s.Config)
	if err != nil {
		return err
	}
	if profile := s.sc.GetApparmor(); profile != nil {
		if s.Config.Process.ApparmorProfile, err = apparmorProfile(profile, s.in.AppArmorDefault, s.in.Node); err != nil {
			return err
		}
	}
	return nil
}

func sandboxSeccomp(sc *runtimeapi.LinuxSandboxSecurityContext) *runtimeapi.SecurityProfile {
	if sc.GetSeccomp() != nil {
		return sc.GetSeccomp()
	}
	//lint:ignore SA1019 old clients still set it
	return profileOf(sc.GetSeccompProfilePath())
}
