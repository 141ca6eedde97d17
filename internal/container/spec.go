package container

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	imgspec "github.com/opencontainers/image-spec/specs-go/v1"
	rspec "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/internal/cgroup"
	"github.com/gantry-cri/gantry/internal/errkind"
	"github.com/gantry-cri/gantry/internal/oci"
	"github.com/gantry-cri/gantry/internal/storage"
)

// specify gathers what the container's OCI spec depends on and makes it.
func (c *Container) specify(root storage.RootFS, img storage.Image) (*rspec.Spec, error) {
	cfg := c.Config()
	user, err := c.resolveUser(root, img)
	if err != nil {
		return nil, err
	}
	c.Record.User = user
	host, err := oci.Prepare(cfg, oci.PrepareOptions{
		SeccompProfile:     c.settings().SeccompProfile,
		WithoutHostDevices: c.pod.Runtime.Options().PrivilegedWithoutHostDevices,
	})
	if err != nil {
		return nil, err
	}
	if err := c.locateVolumes(root, host.Mounts); err != nil {
		return nil, err
	}
	join, err := c.namespaces()
	if err != nil {
		return nil, err
	}
	if c.labels, err = c.mgr.labels(c.pod, cfg); err != nil {
		return nil, err
	}
	spec, err := oci.ContainerSpec(oci.ContainerInput{
		ID:              c.Record.ID,
		PodID:           c.pod.ID,
		Config:          cfg,
		Sandbox:         c.pod.Config,
		Image:           &img.Config.Config,
		ImageName:       cfg.GetImage().GetUserSpecifiedImage(),
		User:            user,
		Node:            c.env.Node,
		Host:            host,
		RootFS:          filepath.Join(c.Dir(), rootfsDir),
		Join:            join,
		UserNS:          c.userNS(),
		Can:             c.pod.Abilities(),
		CgroupsPath:     c.pod.Cgroups.SpecPath(c.pod.CgroupParent, string(c.Record.ID)),
		Systemd:         c.pod.Cgroups == cgroup.Systemd,
		ResolvConf:      c.podFile("etc/resolv.conf"),
		Hostname:        c.podFile("etc/hostname"),
		Hosts:           c.podFile("etc/hosts"),
		Shm:             c.shm(),
		HostnameValue:   c.pod.Hostname,
		OCIVersion:      c.pod.Runtime.OCIVersion(),
		AppArmorDefault: c.env.AppArmorDefault,
		SELinux:         c.labels,
		PidsLimit:       c.settings().PidsLimit,
		Options:         c.pod.Runtime.Options(),
	})
	if err != nil {
		return nil, err
	}
	if err := c.env.AppArmor.Require(spec.Process.ApparmorProfile); err != nil {
		return nil, err
	}
	if err := c.env.Devices.Inject(spec, cfg); err != nil {
		return nil, err
	}
	c.env.Hooks.Apply(spec, len(cfg.GetMounts()) > 0)
	c.tellClamped(cfg.GetLinux().GetResources())
	return spec, c.makeDirectories(root, spec, img.Config)
}

// tellClamped tells that a container is easier for the kernel to kill than was
// asked for. That is the node's nature, so it is told once.
func (c *Container) tellClamped(r *runtimeapi.LinuxContainerResources) {
	given := c.env.Node.ClampOOMScoreAdj(r.GetOomScoreAdj())
	if int64(given) == r.GetOomScoreAdj() {
		return
	}
	c.mgr.clamped.Do(func() {
		c.log.Warn("oom_score_adj of a container changed to what the daemon can give, without CAP_SYS_RESOURCE; this is told once",
			"asked", r.GetOomScoreAdj(), "given", given)
	})
}

func (c *Container) podFile(rel string) string { return filepath.Join(c.pod.Dir, rel) }

func (c *Container) shm() string {
	if c.hostIPC() {
		return "/dev/shm"
	}
	return c.podFile("shm")
}

func (c *Container) resolveUser(root storage.RootFS, img storage.Image) (oci.User, error) {
	var files [2][]byte
	for i, name := range []string{"/etc/passwd", "/etc/group"} {
		text, err := c.env.Storage.ReadFile(root, name, userFileMax)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return oci.User{}, fmt.Errorf("the image's %s: %w", name, err)
		}
		files[i] = text
	}
	return oci.ResolveUser(c.Config().GetLinux().GetSecurityContext(), img.Config.Config.User, files[0], files[1])
}

// userFileMax bounds an image's /etc/passwd and /etc/group, in bytes.
const userFileMax = 4 << 20

// makeDirectories makes the working directory and the image's volumes where
// the image lacks them, and /etc, where the pod's files go: it may be a link to
// what is not there, which not every runtime follows.
func (c *Container) makeDirectories(root storage.RootFS, spec *rspec.Spec, img *imgspec.Image) error {
	dirs := []string{"/etc", spec.Process.Cwd}
	for volume := range img.Config.Volumes {
		dirs = append(dirs, volume)
	}
	for _, dir := range dirs {
		if err := c.env.Storage.EnsureDir(root, dir); err != nil {
			return fmt.Errorf("directory %s of the container: %w", dir, err)
		}
	}
	return nil
}

// namespaces says which namespaces of the pod the container joins. Their
// holder is the pause container, whose PID can't be another process's while
// the pod is ready: its monitor tells at once when it ends.
func (c *Container) namespaces() (oci.Namespaces, error) {
	pause := c.pod.PausePID()
	if pause <= 0 {
		return oci.Namespaces{}, errkind.Errorf(errkind.Precondition, "pod %s has no pause container", c.pod.ID)
	}
	if err := errors.Join(c.checkPodNamespaces(), c.checkSandboxed()); err != nil {
		return oci.Namespaces{}, err
	}
	join := oci.Namespaces{
		Network: filepath.Join(c.pod.Dir, "netns"),
		IPC:     nsPath(pause, "ipc"),
		UTS:     nsPath(pause, "uts"),
	}
	if c.podNamespaces().GetNetwork() == runtimeapi.NamespaceMode_NODE {
		join.Network, join.UTS = oci.Host, oci.Host
	}
	if c.hostIPC() {
		join.IPC = oci.Host
	}
	var err error
	join.PID, err = c.pidNamespace(pause)
	return join, err
}

// userNS is the path of the pod's user namespace, "" for the node's.
func (c *Container) userNS() string {
	if c.pod.UserNS == nil {
		return ""
	}
	return nsPath(c.pod.PausePID(), "user")
}

// checkPodNamespaces refuses a network or IPC namespace that the container can't
// have: both are the pod's.
func (c *Container) checkPodNamespaces() error {
	asked, pod := c.Config().GetLinux().GetSecurityContext().GetNamespaceOptions(), c.podNamespaces()
	for _, ns := range []struct {
		name       string
		asked, pod runtimeapi.NamespaceMode
	}{{"network", asked.GetNetwork(), pod.GetNetwork()}, {"ipc", asked.GetIpc(), pod.GetIpc()}} {
		if ns.asked != runtimeapi.NamespaceMode_POD && ns.asked != ns.pod {
			return errkind.Errorf(errkind.Invalid, "namespace_options.%s of a container can't be %s: the pod's is %s", ns.name, ns.asked, ns.pod)
		}
	}
	return nil
}

// checkSandboxed refuses what a container inside its pod's sandbox can't have.
func (c *Container) checkSandboxed() error {
	if !c.pod.Runtime.Sandboxed() {
		return nil
	}
	switch pid := c.Config().GetLinux().GetSecurityContext().GetNamespaceOptions().GetPid(); pid {
	case runtimeapi.NamespaceMode_NODE, runtimeapi.NamespaceMode_TARGET:
		return errkind.Errorf(errkind.Unsupported, "namespace_options.pid: a container in a sandbox (%s) can't have %s", c.pod.Runtime.Name(), pid)
	}
	for _, m := range c.Config().GetMounts() {
		if m.GetPropagation() == runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL {
			return errkind.Errorf(errkind.Unsupported, "mount %s: no mount of a container in a sandbox (%s) reaches the node",
				m.GetContainerPath(), c.pod.Runtime.Name())
		}
	}
	return nil
}

func (c *Container) pidNamespace(pause int) (string, error) {
	opts := c.Config().GetLinux().GetSecurityContext().GetNamespaceOptions()
	if opts == nil {
		opts = c.podNamespaces()
	}
	switch opts.GetPid() {
	case runtimeapi.NamespaceMode_POD:
		return nsPath(pause, "pid"), nil
	case runtimeapi.NamespaceMode_NODE:
		return oci.Host, nil
	case runtimeapi.NamespaceMode_TARGET:
		return c.targetPIDNamespace(opts.GetTargetId())
	}
	return "", nil
}

// targetPIDNamespace is that of a running container of the same pod.
func (c *Container) targetPIDNamespace(target string) (string, error) {
	if target == "" {
		return "", errkind.Errorf(errkind.Invalid, "namespace_options.target_id is missing")
	}
	t, err := c.mgr.Find(target)
	if err != nil {
		return "", fmt.Errorf("target of the PID namespace: %w", err)
	}
	if t.Record.Pod != c.Record.Pod {
		return "", errkind.Errorf(errkind.Invalid, "target of the PID namespace: container %s is of another pod", t.Record.ID)
	}
	if err := t.requireRunning(); err != nil {
		return "", fmt.Errorf("target of the PID namespace: %w", err)
	}
	return nsPath(t.Status().PID, "pid"), nil
}

func (c *Container) podNamespaces() *runtimeapi.NamespaceOption {
	return c.pod.Config.GetLinux().GetSecurityContext().GetNamespaceOptions()
}

func (c *Container) hostIPC() bool {
	return c.podNamespaces().GetIpc() == runtimeapi.NamespaceMode_NODE
}

func nsPath(pid int, kind string) string { return fmt.Sprintf("/proc/%d/ns/%s", pid, kind) }
