package sandbox

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/gantry-cri/gantry/internal/cgroup"
	"github.com/gantry-cri/gantry/internal/errkind"
	"github.com/gantry-cri/gantry/internal/id"
	"github.com/gantry-cri/gantry/internal/monitor"
	"github.com/gantry-cri/gantry/internal/node"
	"github.com/gantry-cri/gantry/internal/oci"
	"github.com/gantry-cri/gantry/internal/programs"
	"github.com/gantry-cri/gantry/internal/selinux"
)

// pauseID is the name of the pod's pause container in the OCI runtime.
func (p *Pod) pauseID() id.Container { return id.Container(p.Record.ID) }

func (p *Pod) pauseCgroup() string {
	return p.Record.Cgroups.Child(p.Record.CgroupParent, string(p.Record.ID))
}

// monitorCgroup is a leaf: on cgroup v2 a cgroup with children can't hold processes.
func (p *Pod) monitorCgroup() string {
	return p.Record.Cgroups.Child(p.Record.CgroupParent, string(p.Record.ID)+"-monitor")
}

// monitorHierarchies are the cgroup v1 hierarchies that the monitor moves
// into: those that account for what it uses. Each move makes every fork on the
// node wait for the kernel's RCU.
func monitorHierarchies(facts node.Facts) node.Facts {
	all := facts.CgroupV1
	facts.CgroupV1 = make(map[string]string)
	facts.CgroupUnified = ""
	for _, controller := range []string{"memory", "cpuacct"} {
		if dir, ok := all[controller]; ok {
			facts.CgroupV1[controller] = dir
		}
	}
	return facts
}

// startPause starts the pod's monitor and, through it, the pause container.
func (m *Manager) startPause(ctx context.Context, p *Pod, st *Status) error {
	if err := m.launchMonitor(ctx, p); err != nil {
		return fmt.Errorf("monitor: %w", err)
	}
	req, err := m.pauseRequest(ctx, p)
	if err != nil {
		return fmt.Errorf("pause container: %w", err)
	}
	mon, err := p.Monitor()
	if err != nil {
		return err
	}
	pid, err := mon.Create(ctx, req)
	if err != nil {
		return fmt.Errorf("create the pause container: %w", err)
	}
	st.PausePID = pid
	ctx, cancel := context.WithTimeout(ctx, m.settings.Load().RuntimeTimeout)
	defer cancel()
	if err := p.runtime.Start(ctx, string(p.pauseID())); err != nil {
		return fmt.Errorf("start the pause container: %w", err)
	}
	return nil
}

func (m *Manager) launchMonitor(ctx context.Context, p *Pod) error {
	o := monitor.LaunchOptions{Program: m.opts.Programs.Monitor, Dir: p.dir}
	if p.Record.Cgroups != cgroup.Systemd {
		o.Cgroups = cgroup.Paths(m.monitorNode, p.monitorCgroup())
	}
	mon, err := monitor.Launch(ctx, o, m.handler(p))
	if err != nil {
		return err
	}
	m.adopt(p, mon)
	return m.placeMonitor(ctx, p, mon.PID())
}

// adopt makes mon the pod's monitor and watches for its end.
func (m *Manager) adopt(p *Pod, mon *monitor.Client) {
	p.setMonitor(mon)
	go func() {
		<-mon.Done()
		m.monitorEnded(p, mon)
	}()
}

// pauseRequest writes the pause container's bundle.
func (m *Manager) pauseRequest(ctx context.Context, p *Pod) (monitor.CreateRequest, error) {
	seccomp, err := oci.PrepareSandbox(p.Config(), oci.PrepareOptions{SeccompProfile: m.settings.Load().SeccompProfile})
	if err != nil {
		return monitor.CreateRequest{}, err
	}
	user, err := oci.SandboxUser(p.Config())
	if err != nil {
		return monitor.CreateRequest{}, err
	}
	labels, err := m.pauseLabels(p)
	if err != nil {
		return monitor.CreateRequest{}, err
	}
	in := oci.SandboxInput{
		ID:              p.Record.ID,
		User:            user,
		Config:          p.Config(),
		Node:            m.opts.Node,
		Seccomp:         seccomp,
		RootFS:          m.opts.Programs.PauseRootFS,
		Args:            []string{programs.PauseArg},
		CgroupsPath:     p.Record.Cgroups.SpecPath(p.Record.CgroupParent, string(p.pauseID())),
		Systemd:         p.Record.Cgroups == cgroup.Systemd,
		OCIVersion:      p.runtime.OCIVersion(),
		AppArmorDefault: m.opts.AppArmorDefault,
		SELinux:         labels,
		Hostname:        p.Record.Hostname,
		Options:         p.runtime.Options(),
	}
	if !p.HostNetwork() {
		in.NetNS, in.NewNetNS = p.netns(), p.host.UserNS != nil
	}
	req := monitor.CreateRequest{
		ID:       p.pauseID(),
		PidFile:  filepath.Join(p.dir, pidFile),
		ExitFile: filepath.Join(p.dir, exitFile),
		Timeout:  m.settings.Load().CreateTimeout,
	}
	if p.Record.PauseImage != "" {
		if err := m.usePauseImage(ctx, p, &in, &req); err != nil {
			return req, err
		}
	}
	if p.runtime.Sandboxed() {
		in.SharedMemory = filepath.Join(p.dir, shmDir)
	}
	spec, err := oci.SandboxSpec(in)
	if err != nil {
		return req, err
	}
	if err := m.opts.AppArmor.Require(spec.Process.ApparmorProfile); err != nil {
		return req, err
	}
	if err := oci.WriteBundle(p.bundle(), spec); err != nil {
		return req, err
	}
	req.Args = p.runtime.CreateArgs(oci.CreateArgs{
		ID: string(p.pauseID()), Bundle: p.bundle(), PidFile: req.PidFile, Systemd: in.Systemd,
	})
	return req, nil
}

// pauseLabels are the pod's SELinux labels; a privileged pod's pause is not
// confined.
func (m *Manager) pauseLabels(p *Pod) (selinux.Labels, error) {
	sc := p.Config().GetLinux().GetSecurityContext()
	return m.opts.SELinux.Container(p.Record.SELinux, sc.GetSelinuxOptions(), !sc.GetPrivileged())
}

// usePauseImage makes the pause container run the configured image instead of
// the built-in program.
func (m *Manager) usePauseImage(ctx context.Context, p *Pod, in *oci.SandboxInput, req *monitor.CreateRequest) error {
	img, err := m.opts.FindImage(ctx, p.pause.Image)
	if err != nil {
		return err
	}
	conf := img.Config.Config
	if in.Args = p.pause.Command; len(in.Args) == 0 {
		in.Args = slices.Concat(conf.Entrypoint, conf.Cmd)
	}
	in.Env, in.Cwd = conf.Env, conf.WorkingDir
	if len(in.Args) == 0 {
		return errkind.Errorf(errkind.Invalid, "pause image %s has neither entrypoint nor command", img.ID)
	}
	in.RootFS = filepath.Join(p.bundle(), rootfsDir)
	if err := os.Mkdir(in.RootFS, 0o755); err != nil {
		return err
	}
	// The user namespace that could map the layers' ids is the pause container's
	// own: it sees them as nobody's, which is enough to run a program.
	root, err := m.opts.Storage.CreateRootFS(p.pauseID(), img.ID, p.host.RootFSOptions())
	if err != nil {
		return err
	}
	req.Mounts = []monitor.Mount{{Overlay: &monitor.Overlay{
		Target: in.RootFS, Lower: root.Lower, Upper: root.Upper, Work: root.Work, Options: in.SELinux.Overlay(root.Options()),
	}}}
	return nil
}

// handler returns what the pod's monitor calls.
func (m *Manager) handler(p *Pod) monitor.Handler {
	return monitor.Handler{Exit: m.onExit(p), Log: m.opts.Containers.LogChanged}
}

func (m *Manager) onExit(p *Pod) func(id.Container, monitor.Exit) {
	return func(ctr id.Container, e monitor.Exit) {
		if ctr == p.pauseID() {
			m.pauseEnded(p, fmt.Sprintf("the pause container ended with code %d", e.Code))
			return
		}
		m.opts.Containers.Exited(ctr, e)
	}
}

// pauseEnded marks a ready pod as broken: its namespaces are gone.
func (m *Manager) pauseEnded(p *Pod, why string) {
	p.mu.Lock()
	p.ended.Do(func() { close(p.pauseGone) })
	p.mu.Unlock()
	if p.transition(Broken, why) {
		p.log.Info("pod is broken", "reason", why)
	}
}

// monitorEnded handles the loss of the pod's monitor: expected after a stop,
// else it breaks the pod and ends its containers.
func (m *Manager) monitorEnded(p *Pod, mon *monitor.Client) {
	p.mu.Lock()
	current := p.mon == mon // nil: a recovered pod whose monitor is gone
	if current {
		p.mon = nil
	}
	p.mu.Unlock()
	if !current {
		return
	}
	if st := p.Status().State; st == Stopped || st == Stopping {
		m.pauseEnded(p, "")
		m.opts.Containers.MonitorLost(p.Record.ID)
		return
	}
	m.pauseEnded(p, "the pod's monitor ended")
	m.opts.Containers.MonitorLost(p.Record.ID)
}
