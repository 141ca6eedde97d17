package oci

import (
	"fmt"
	"slices"
	"strings"

	rspec "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-tools/generate"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/internal/errkind"
)

// containerSpec is a specification under construction. Each of its methods
// decides about one part of it.
type containerSpec struct {
	generate.Generator
	in ContainerInput
	sc *runtimeapi.LinuxContainerSecurityContext // may be nil

	userns *UserNamespace // the pod's; nil is the node's
}

// ContainerSpec makes the specification of a container. The kind of the error
// is Invalid for a request that makes no sense, and Unsupported for one that
// this node or Gantry can't fulfil: nothing that is asked for is left out.
func ContainerSpec(in ContainerInput) (*rspec.Spec, error) {
	s := &containerSpec{
		Generator: newGenerator(in.OCIVersion, in.RootFS, in.CgroupsPath),
		in:        in,
		sc:        in.Config.GetLinux().GetSecurityContext(),
	}
	for _, part := range []func() error{
		s.checkSupported,
		s.setProcess,
		s.setEnv,
		s.setCapabilities,
		s.setNamespaces,
		s.setMounts,
		s.setDevices,
		s.setResources,
		s.setPaths,
		s.setConfinement,
		s.setAnnotations,
	} {
		if err := part(); err != nil {
			return nil, err
		}
	}
	return s.Config, nil
}

// newGenerator starts a specification that allows nothing yet.
func newGenerator(version, rootfs, cgroup string) generate.Generator {
	return generate.NewFromSpec(&rspec.Spec{
		Version: version,
		Root:    &rspec.Root{Path: rootfs},
		Process: &rspec.Process{Cwd: "/"},
		Linux: &rspec.Linux{
			CgroupsPath: cgroup,
			Resources:   &rspec.LinuxResources{},
		},
	})
}

func (s *containerSpec) privileged() bool { return s.sc.GetPrivileged() }

// checkSupported refuses what can't be done at all, before anything else.
func (s *containerSpec) checkSupported() (err error) {
	sandbox := s.in.Sandbox.GetLinux().GetSecurityContext()
	if s.userns, err = containerUserNamespace(s.sc.GetNamespaceOptions(), sandbox.GetNamespaceOptions()); err != nil {
		return err
	}
	if s.privileged() && !sandbox.GetPrivileged() {
		return errkind.Errorf(errkind.Invalid, "a privileged container is not allowed in a pod sandbox that is not privileged")
	}
	return nil
}

func (s *containerSpec) setProcess() error {
	args, err := commandLine(s.in)
	if err != nil {
		return err
	}
	s.SetProcessArgs(args)
	s.SetProcessCwd(workingDir(s.in))
	s.SetProcessTerminal(s.in.Config.GetTty())
	s.SetProcessNoNewPrivileges(s.sc.GetNoNewPrivs())
	s.SetRootReadonly(s.sc.GetReadonlyRootfs())
	if s.userns != nil {
		if err := s.userns.checkUser(s.in.User); err != nil {
			return err
		}
	}
	setUser(&s.Generator, s.in.User)
	for _, l := range s.in.Rlimits {
		if err := s.addRlimit(l); err != nil {
			return err
		}
	}
	return nil
}

func setUser(g *generate.Generator, u User) {
	g.SetProcessUID(u.UID)
	g.SetProcessGID(u.GID)
	for _, gid := range u.Groups {
		g.AddProcessAdditionalGid(gid)
	}
}

// commandLine is what the container runs. The command of the request replaces
// the image's entrypoint and its default arguments; args replace the default
// arguments only.
func commandLine(in ContainerInput) ([]string, error) {
	command, args := in.Config.GetCommand(), in.Config.GetArgs()
	if len(command) == 0 && in.Image != nil {
		command = in.Image.Entrypoint
		if len(args) == 0 {
			args = in.Image.Cmd
		}
	}
	all := slices.Concat(command, args)
	if len(all) == 0 || all[0] == "" {
		return nil, errkind.Errorf(errkind.Invalid, "no command: neither the request nor the image %s names one", in.ImageName)
	}
	for _, arg := range all {
		if strings.ContainsRune(arg, 0) {
			return nil, errkind.Errorf(errkind.Invalid, "command: argument %q holds a null byte", arg)
		}
	}
	return all, nil
}

// workingDir is an absolute path: a relative one counts from the root.
func workingDir(in ContainerInput) string {
	dir := in.Config.GetWorkingDir()
	if dir == "" && in.Image != nil {
		dir = in.Image.WorkingDir
	}
	return cleanPath(dir)
}

// setEnv sets the environment: what every container has, over it the image's,
// over it the request's.
func (s *containerSpec) setEnv() error {
	s.AddProcessEnv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	if s.in.Config.GetTty() {
		s.AddProcessEnv("TERM", "xterm")
	}
	if s.in.HostnameValue != "" {
		s.AddProcessEnv("HOSTNAME", s.in.HostnameValue)
	}
	if s.in.User.Home != "" {
		s.AddProcessEnv("HOME", s.in.User.Home)
	}
	if s.in.Image != nil {
		for _, env := range s.in.Image.Env {
			if name, value, ok := strings.Cut(env, "="); ok && name != "" {
				s.AddProcessEnv(name, value)
			}
		}
	}
	for _, env := range s.in.Config.GetEnvs() {
		name, value := env.GetKey(), string(env.GetValue())
		if name == "" || strings.ContainsAny(name, "=\x00") || strings.ContainsRune(value, 0) {
			return errkind.Errorf(errkind.Invalid, "envs: %q is not a valid name, or its value holds a null byte", name)
		}
		s.AddProcessEnv(name, value)
	}
	return nil
}

// setNamespaces gives the container its namespaces. It always has a mount
// namespace of its own; and on cgroup version 2 a cgroup namespace, unless it
// is privileged and so sees the node's cgroups as they are.
func (s *containerSpec) setNamespaces() error {
	j := s.in.Join
	if err := setNamespaces(&s.Generator, j); err != nil {
		return err
	}
	setUserNamespace(s.Config, s.userns, s.in.UserNS)
	if s.in.Node.CgroupV2 && !s.privileged() {
		if err := s.AddOrReplaceLinuxNamespace("cgroup", ""); err != nil {
			return err
		}
	}
	if j.UTS == "" {
		s.SetHostname(s.in.HostnameValue)
	}
	return nil
}

func setNamespaces(g *generate.Generator, j Namespaces) error {
	for _, ns := range []struct{ kind, path string }{
		{"mount", ""}, {"network", j.Network}, {"ipc", j.IPC}, {"uts", j.UTS}, {"pid", j.PID},
	} {
		if ns.path == Host {
			continue
		}
		if err := g.AddOrReplaceLinuxNamespace(ns.kind, ns.path); err != nil {
			return fmt.Errorf("%s namespace: %w", ns.kind, err)
		}
	}
	return nil
}
