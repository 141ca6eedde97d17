package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	securejoin "github.com/cyphar/filepath-securejoin"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/internal/cgroup"
	"github.com/gantry-cri/gantry/internal/errkind"
	"github.com/gantry-cri/gantry/internal/events"
	"github.com/gantry-cri/gantry/internal/id"
	"github.com/gantry-cri/gantry/internal/monitor"
	"github.com/gantry-cri/gantry/internal/oci"
	"github.com/gantry-cri/gantry/internal/rollback"
	"github.com/gantry-cri/gantry/internal/statefile"
	"github.com/gantry-cri/gantry/internal/storage"
)

// CreateRequest says which container to create.
type CreateRequest struct {
	Config   *runtimeapi.ContainerConfig
	Image    storage.Image
	ImageRef string // reported in the status
	Volumes  []ImageVolume
}

// ImageVolume is the image that a mount of the configuration asks for.
type ImageVolume struct {
	Mount int // its index in the configuration
	Image storage.Image
	Ref   string // reported in the status
}

// Create creates a container in pod; when it returns, the container waits in
// its init for Start. A container of the same name and attempt that was
// created from the same configuration and has not ended is returned as it is.
// When Create fails nothing of the container is left. The caller must join
// concurrent calls of one identity and keep the pod from being stopped.
func (m *Manager) Create(ctx context.Context, pod *Pod, req CreateRequest) (*Container, error) {
	if c := m.byName(pod.ID, req.Config.GetMetadata()); c != nil {
		return c, c.sameRequest(req.Config)
	}
	if err := pod.Runtime.Ready(ctx); err != nil {
		return nil, fmt.Errorf("create container %s: %w", req.Config.GetMetadata().GetName(), err)
	}
	c, err := m.describe(pod, req)
	if err != nil {
		return nil, fmt.Errorf("create container %s: %w", req.Config.GetMetadata().GetName(), err)
	}
	if err := m.bringUp(ctx, c, req); err != nil {
		return nil, fmt.Errorf("create container %s: %w", req.Config.GetMetadata().GetName(), err)
	}
	return c, nil
}

func (m *Manager) byName(pod id.Pod, md *runtimeapi.ContainerMetadata) *Container {
	for _, c := range m.OfPod(pod) {
		if c.visible() && proto.Equal(c.Config().GetMetadata(), md) {
			return c
		}
	}
	return nil
}

func (c *Container) sameRequest(cfg *runtimeapi.ContainerConfig) error {
	switch {
	case c.Status().State == Exited:
		return errkind.Errorf(errkind.Exists, "container %s (attempt %d) exists as %s and has ended: remove it, or count the attempt up",
			cfg.GetMetadata().GetName(), cfg.GetMetadata().GetAttempt(), c.Record.ID)
	case !proto.Equal(c.Config(), cfg):
		return errkind.Errorf(errkind.Exists, "container %s (attempt %d) exists as %s with another configuration: remove it, or count the attempt up",
			cfg.GetMetadata().GetName(), cfg.GetMetadata().GetAttempt(), c.Record.ID)
	}
	return nil
}

// describe decides everything about a new container that does not change later.
func (m *Manager) describe(pod *Pod, req CreateRequest) (*Container, error) {
	rec := Record{
		ID:        id.NewContainer(),
		Pod:       pod.ID,
		CreatedAt: time.Now(),
		Config:    statefile.Of(req.Config),
		ImageID:   "sha256:" + req.Image.ID,
		ImageRef:  req.ImageRef,
		Resources: statefile.Of(req.Config.GetLinux().GetResources()),
	}
	for _, v := range req.Volumes {
		rec.Volumes = append(rec.Volumes, Volume{Mount: v.Mount, ImageID: "sha256:" + v.Image.ID, ImageRef: v.Ref})
	}
	rec.Cgroup = pod.Cgroups.Child(pod.CgroupParent, string(rec.ID))
	logPath, err := logPath(pod.Config.GetLogDirectory(), req.Config.GetLogPath())
	if err != nil {
		return nil, err
	}
	rec.LogPath = logPath
	if rec.StopSig, err = stopSignal(req.Config.GetStopSignal(), req.Image.Config); err != nil {
		return nil, err
	}
	return m.newContainer(rec, pod, Status{}), nil
}

// logPath joins a pod's log directory and a container's log path, which may
// lead nowhere else. Without a directory, or without a path, nothing is logged.
func logPath(dir, rel string) (string, error) {
	if dir == "" || rel == "" {
		return "", nil
	}
	if !filepath.IsLocal(rel) {
		return "", errkind.Errorf(errkind.Invalid, "log path %q leads out of the pod's log directory", rel)
	}
	joined, err := securejoin.SecureJoin(dir, rel)
	if err != nil {
		return "", errkind.Errorf(errkind.Invalid, "log path %q: %w", rel, err)
	}
	if err := os.MkdirAll(filepath.Dir(joined), 0o755); err != nil {
		return "", errkind.Errorf(errkind.FullOr(errkind.Invalid, err), "log path %q: %w", rel, err)
	}
	return joined, nil
}

// bringUp makes everything of the container. The record is the intent of all
// of it: a crash leaves a directory without state.json, which recovery undoes.
func (m *Manager) bringUp(ctx context.Context, c *Container, req CreateRequest) (err error) {
	var undo rollback.Stack
	defer undo.OnError(ctx, &err)
	undo.Push("discard the container", c.discard)
	if err := c.makeDirectory(); err != nil {
		return err
	}
	options := c.pod.RootFSOptions()
	for _, v := range req.Volumes {
		options.Volumes = append(options.Volumes, v.Image.ID)
	}
	root, err := c.env.Storage.CreateRootFS(c.Record.ID, req.Image.ID, options)
	if err != nil {
		return err
	}
	spec, err := c.specify(root, req.Image)
	if err != nil {
		return err
	}
	if err := errors.Join(oci.WriteBundle(c.Dir(), spec), c.writeRecord()); err != nil {
		return err
	}
	log, err := straightLogPath(c.pod.Config.GetLogDirectory(), c.Record.LogPath)
	if err != nil {
		return err
	}
	mon, err := c.pod.Monitor()
	if err != nil {
		return err
	}
	m.add(c) // an exit may be told as soon as the monitor has it
	monitored := c.monitorRequest(root, mon)
	monitored.LogPath = log
	pid, err := mon.Create(ctx, monitored)
	if err != nil {
		return err
	}
	if err := c.writePhase(phase{PID: pid}); err != nil {
		return err
	}
	c.publishAs(events.Created, func(s Status) Status {
		c.made.Store(true)
		if s.State != Exited {
			s.State, s.PID = Created, pid
		}
		return s
	})
	return nil
}

// makeDirectory makes the bundle and writes the record.
func (c *Container) makeDirectory() error {
	if err := os.Mkdir(c.Dir(), 0o700); err != nil {
		return err
	}
	if err := c.writeRecord(); err != nil {
		return err
	}
	if err := c.pod.Admit(c.Dir()); err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(c.Dir(), rootfsDir), 0o755); err != nil {
		return err
	}
	return c.makeVolumeDirectories()
}

// monitorRequest is what the monitor needs to run RUNTIME create. The root
// filesystem, image volumes and the pod's /dev/shm are mounted in the runtime's
// own mount namespace only.
func (c *Container) monitorRequest(root storage.RootFS, mon *monitor.Client) monitor.CreateRequest {
	cfg := c.Config()
	console := ""
	if cfg.GetTty() {
		console = mon.ConsoleSocket(c.Record.ID)
	}
	req := monitor.CreateRequest{
		ID:            c.Record.ID,
		Args:          c.createArgs(console),
		PidFile:       filepath.Join(c.Dir(), pidFile),
		ExitFile:      filepath.Join(c.Dir(), exitFile),
		LogSizeMax:    c.settings().LogSizeMax,
		Journal:       c.settings().Journal,
		JournalFields: c.journalFields(),
		OOMFile:       cgroup.MemoryEventsFile(c.env.Node, c.Record.Cgroup),
		Stdin:         cfg.GetStdin(),
		StdinOnce:     cfg.GetStdinOnce(),
		TTY:           cfg.GetTty(),
		ConsoleSocket: console,
		Timeout:       c.settings().CreateTimeout,
		Mounts: []monitor.Mount{{Overlay: &monitor.Overlay{
			Target:  filepath.Join(c.Dir(), rootfsDir),
			Lower:   root.Lower,
			Upper:   root.Upper,
			Work:    root.Work,
			Options: c.mountOptions(root),
			IDsPID:  c.idsPID(),
		}}},
	}
	req.OwnerUID, req.OwnerGID = c.pod.UserNS.Root()
	req.Mounts = append(req.Mounts, c.volumeMounts(root)...)
	if !c.hostIPC() && !c.pod.Runtime.Sandboxed() {
		req.Mounts = append(req.Mounts, monitor.Mount{Shared: &monitor.FromProcess{
			PID:    c.pod.PausePID(),
			Source: "/dev/shm",
			Target: filepath.Join(c.pod.Dir, "shm"),
		}})
	}
	return req
}

// createArgs is the command line that creates the container.
func (c *Container) createArgs(console string) []string {
	args := oci.CreateArgs{
		ID:            string(c.Record.ID),
		Bundle:        c.Dir(),
		PidFile:       filepath.Join(c.Dir(), pidFile),
		ConsoleSocket: console,
		Systemd:       c.pod.Cgroups == cgroup.Systemd,
	}
	if c.pod.Runtime.Sandboxed() {
		return c.pod.Runtime.StandInArgs(c.env.StandIn, args)
	}
	return c.pod.Runtime.CreateArgs(args)
}

// discard undoes a creation. Each part is idempotent; the record goes last.
func (c *Container) discard(ctx context.Context) error {
	c.op.Lock()
	defer c.op.Unlock()
	if err := c.cleanUp(ctx); err != nil {
		return err
	}
	err := errors.Join(c.env.Storage.RemoveRootFS(c.Record.ID), os.RemoveAll(c.Dir()))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	c.mgr.drop(c)
	return nil
}
