package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/gantry-cri/gantry/internal/apparmor"
	"github.com/gantry-cri/gantry/internal/cdi"
	"github.com/gantry-cri/gantry/internal/cgroup"
	"github.com/gantry-cri/gantry/internal/config"
	"github.com/gantry-cri/gantry/internal/container"
	"github.com/gantry-cri/gantry/internal/hooks"
	"github.com/gantry-cri/gantry/internal/id"
	"github.com/gantry-cri/gantry/internal/image"
	"github.com/gantry-cri/gantry/internal/network"
	"github.com/gantry-cri/gantry/internal/node"
	"github.com/gantry-cri/gantry/internal/oci"
	"github.com/gantry-cri/gantry/internal/programs"
	"github.com/gantry-cri/gantry/internal/sandbox"
	"github.com/gantry-cri/gantry/internal/selinux"
	"github.com/gantry-cri/gantry/internal/server"
	"github.com/gantry-cri/gantry/internal/stats"
	"github.com/gantry-cri/gantry/internal/storage"
	"github.com/gantry-cri/gantry/internal/streaming"
	"github.com/gantry-cri/gantry/internal/systemd"
)

// daemon is everything that runs.
type daemon struct {
	log        *slog.Logger
	level      *slog.LevelVar          // of the log
	config     atomic.Pointer[inForce] // never nil
	systemd    *systemd.Client
	apparmor   *apparmor.Profiles
	devices    *cdi.Devices
	hooks      *hooks.Dirs
	storage    *storage.Store
	images     *image.Service
	network    *network.Manager
	containers *container.Manager
	pods       *sandbox.Manager
	streams    *streaming.Server
	stats      *stats.Collector
	server     *server.Server
}

// ground is what the parts stand on: the configuration, and what the node has.
type ground struct {
	cfg      config.Config
	facts    node.Facts
	cgroups  cgroup.Manager
	runtimes map[string]*oci.Runtime
	programs programs.Paths
	labels   *selinux.Node
	log      *slog.Logger
	settings settings // without the images' store
}

func survey(ctx context.Context, loaded *config.Loaded, log *slog.Logger) (g ground, err error) {
	g.log = log
	if g.cfg, err = loaded.ResolveRuntimes(exec.LookPath); err != nil {
		return g, err
	}
	if g.facts, err = node.Probe(); err != nil {
		return g, fmt.Errorf("probe the node: %w", err)
	}
	if g.cgroups, err = cgroupManager(g.cfg, log); err != nil {
		return g, err
	}
	if g.runtimes, err = openRuntimes(ctx, g.cfg.Runtimes, opened{}, log); err != nil {
		return g, err
	}
	if g.programs, err = programs.Install(binDir(g.cfg)); err != nil {
		return g, fmt.Errorf("install the monitor and pause: %w", err)
	}
	g.labels = selinux.Real(g.facts.SELinux)
	if err := g.labels.Problem(); err != nil {
		log.Warn("containers are not confined", "err", err)
	}
	if err := g.labels.Relabel(ctx, g.programs.PauseRootFS, g.labels.Layers()); err != nil {
		return g, err
	}
	g.settings, err = settingsOf(g.cfg, g.runtimes, nil, log)
	return g, err
}

// assemble makes the parts and connects them. Nothing of a pod is touched yet.
func assemble(ctx context.Context, loaded *config.Loaded, log *slog.Logger, level *slog.LevelVar) (_ *daemon, err error) {
	read := time.Now()
	g, err := survey(ctx, loaded, log)
	if err != nil {
		return nil, err
	}
	d := &daemon{log: log, level: level, devices: cdi.New(g.settings.cdiDirs), hooks: hooks.New(g.settings.hooksDirs)}
	d.config.Store(&inForce{loaded: loaded.Config, cfg: g.cfg, read: read})
	d.systemd = systemd.New(systemd.AddressFrom(os.Getenv), g.cfg.RuntimeTimeout)
	d.apparmor = apparmor.New(apparmor.Options{Enabled: g.facts.AppArmor, Default: g.cfg.AppArmorProfile, Log: log})
	defer func() {
		if err != nil {
			err = errors.Join(err, d.closeOpen())
		}
	}()
	if err := d.open(g); err != nil {
		return nil, err
	}
	d.containers = container.NewManager(d.containerEnvironment(g))
	podOptions := d.podOptions(g)
	podOptions.NoUserNamespaces = probeUserNamespaces(g.programs, d.storage)
	d.pods = sandbox.New(podOptions)
	if d.streams, err = openStreams(g.cfg, server.Backend{Pods: d.pods, Containers: d.containers}, log); err != nil {
		return nil, err
	}
	d.stats = d.openStats(g.cfg, g.facts)
	d.server = server.New(server.Options{
		Version:        version,
		Pods:           d.pods,
		Containers:     d.containers,
		Images:         d.images,
		Network:        d.network,
		Streams:        d.streams,
		Stats:          d.stats,
		SystemdCgroups: g.cgroups == cgroup.Systemd,
		Log:            log,
		MaxMessageSize: g.cfg.GRPCMaxMessageSize,
		Config:         func() any { return d.config.Load().cfg },
		Problems:       d.problems,
	})
	return d, nil
}

// open opens what must be closed again.
func (d *daemon) open(g ground) (err error) {
	storage.ForwardLibraryLogs(g.log)
	d.storage, err = storage.Open(storageOptions(g))
	if err != nil {
		return err
	}
	if d.images, err = image.New(imageOptions(g.cfg, d.storage, g.log)); err != nil {
		return err
	}
	d.network, err = network.New(networkOptions(g))
	return err
}

func storageOptions(g ground) storage.Options {
	return storage.Options{Root: g.cfg.Root, RunRoot: g.cfg.RunRoot, Log: g.log, UsagePeriod: g.cfg.StatsCollectionPeriod, SELinux: g.labels.Layers()}
}

func networkOptions(g ground) network.Options {
	return network.Options{Settings: g.settings.network, StateDir: networkDir(g.cfg), Log: g.log}
}

func binDir(cfg config.Config) string { return filepath.Join(cfg.Root, "bin") }

func networkDir(cfg config.Config) string { return filepath.Join(cfg.Root, "network") }

// closeOpen closes what is open, in the reverse order.
func (d *daemon) closeOpen() error {
	var errs []error
	if d.streams != nil {
		errs = append(errs, d.streams.Close())
	}
	if d.network != nil {
		errs = append(errs, d.network.Close())
	}
	if d.images != nil {
		errs = append(errs, d.images.Close())
	}
	if d.storage != nil {
		errs = append(errs, d.storage.Close())
	}
	return errors.Join(errs...)
}

func (d *daemon) containerEnvironment(g ground) *container.Environment {
	return &container.Environment{
		Storage:         d.storage,
		Node:            g.facts,
		Log:             g.log,
		Settings:        g.settings.containers,
		ExecWait:        g.programs.ExecWait,
		StandIn:         g.programs.StandIn,
		AppArmorDefault: g.cfg.AppArmorProfile,
		AppArmor:        d.apparmor,
		SELinux:         g.labels,
		Devices:         d.devices,
		Hooks:           d.hooks,
	}
}

func (d *daemon) podOptions(g ground) sandbox.Options {
	return sandbox.Options{
		RunRoot:         g.cfg.RunRoot,
		Programs:        g.programs,
		Node:            g.facts,
		Network:         d.network,
		Containers:      d.containers,
		Storage:         d.storage,
		Settings:        g.settings.pods,
		Cgroups:         g.cgroups,
		Systemd:         d.systemd,
		CgroupParent:    g.cfg.CgroupParent,
		FindImage:       d.findImage,
		AppArmorDefault: g.cfg.AppArmorProfile,
		AppArmor:        d.apparmor,
		SELinux:         g.labels,
		Log:             g.log,
	}
}

// probeUserNamespaces tries out whether the node can make a root filesystem for
// a user namespace.
func probeUserNamespaces(progs programs.Paths, store *storage.Store) error {
	const anyID, ids = 100000, 65536
	namespace, err := node.NewUserNamespace(filepath.Join(progs.PauseRootFS, programs.PauseArg), anyID, ids)
	if err != nil {
		return err
	}
	return errors.Join(store.ProbeIDMap(namespace, anyID), namespace.Close())
}

// cgroupManager is who makes the cgroups of new pods.
func cgroupManager(cfg config.Config, log *slog.Logger) (cgroup.Manager, error) {
	m := cgroup.Manager(cfg.CgroupManager)
	if _, err := m.Default(cfg.CgroupParent, "pod"); err != nil {
		return m, fmt.Errorf("cgroup_parent: %w", err)
	}
	if m == cgroup.Systemd && !systemd.Running() {
		log.Warn("cgroup_manager is systemd, but systemd is not this node's service manager: no pod can be run")
	}
	return m, nil
}

func (d *daemon) openStats(cfg config.Config, facts node.Facts) *stats.Collector {
	return stats.New(stats.Options{
		Node:   facts,
		Period: cfg.StatsCollectionPeriod,
		Pods:   server.Measured(d.pods, d.containers),
		Layer: func(ctr id.Container) (stats.Layer, bool) {
			u, ok := d.storage.ContainerUsage(ctr)
			return stats.Layer{Bytes: u.Bytes, Inodes: u.Inodes, At: u.At}, ok
		},
		LayersDir:        d.storage.ContainerDir(),
		LayersMountpoint: d.storage.ContainerMountpoint(),
		Interface:        network.IfName,
	})
}

// openStreams listens for the sessions of exec, attach and port-forward.
func openStreams(cfg config.Config, backend streaming.Backend, log *slog.Logger) (*streaming.Server, error) {
	streaming.ForwardLibraryLogs(log)
	o := streaming.Options{
		Address:     net.JoinHostPort(cfg.StreamAddress, strconv.Itoa(cfg.StreamPort)),
		IdleTimeout: cfg.StreamIdleTimeout,
		Backend:     backend,
		Log:         log,
	}
	if cfg.StreamTLSCert != "" {
		var err error
		if o.TLS, err = streaming.TLSFiles(cfg.StreamTLSCert, cfg.StreamTLSKey); err != nil {
			return nil, err
		}
	}
	return streaming.New(o)
}

// opened are runtimes that were opened before, with what they were configured with.
type opened struct {
	configured map[string]config.Runtime
	runtimes   map[string]*oci.Runtime
}

// openRuntimes probes the handlers' binaries, at the same time; what is known of
// one that is configured as before stays. One that can't be used is probed again
// when a pod asks for it, and stops nothing else.
func openRuntimes(ctx context.Context, configured map[string]config.Runtime, before opened, log *slog.Logger) (map[string]*oci.Runtime, error) {
	var mu sync.Mutex
	runtimes := make(map[string]*oci.Runtime) // guarded by mu
	var probes errgroup.Group
	for name, r := range configured {
		if old, ok := before.configured[name]; ok && old.Same(r) {
			mu.Lock()
			runtimes[name] = before.runtimes[name]
			mu.Unlock()
			continue
		}
		if err := os.MkdirAll(r.Root, 0o711); err != nil {
			return nil, err
		}
		probes.Go(func() error {
			rt, err := oci.NewRuntime(ctx, name, r.Path, r.Root, oci.RuntimeOptions{
				Args:                         r.Args,
				DefaultAnnotations:           r.DefaultAnnotations,
				AllowedAnnotations:           r.AllowedAnnotations,
				PrivilegedWithoutHostDevices: r.PrivilegedWithoutHostDevices,
			})
			if err != nil {
				return err
			}
			if err := rt.Problem(); err != nil {
				log.Error("a runtime handler can't be used; it is tried again when a pod asks for it", "handler", name, "err", err)
			}
			mu.Lock()
			defer mu.Unlock()
			runtimes[name] = rt
			return nil
		})
	}
	return runtimes, probes.Wait()
}

// findImage finds an image, or pulls it when it is first needed.
func (d *daemon) findImage(ctx context.Context, name string) (storage.Image, error) {
	img, err := d.images.Resolve(name)
	if err != nil {
		img, err = d.images.Pull(ctx, image.PullRequest{Image: name})
	}
	return img, err
}

// recover takes over what an earlier daemon left.
func (d *daemon) recover(ctx context.Context) error {
	if err := d.pods.Recover(ctx); err != nil {
		return fmt.Errorf("recover pods: %w", err)
	}
	keep, err := d.pods.Layers()
	if err == nil {
		err = d.storage.Reclaim(keep)
	}
	if err != nil {
		d.log.Error("writable layers of no container not reclaimed", "err", err)
	}
	present, err := d.pods.Present()
	if err != nil {
		return fmt.Errorf("recover networks: %w", err)
	}
	go d.network.Recover(ctx, present)
	return nil
}

// problems lists what is wrong without stopping the daemon.
func (d *daemon) problems() []string {
	out := slices.Concat(d.config.Load().problems(), d.pods.RuntimeProblems(), d.pods.Damaged())
	for _, err := range d.storage.Problems() {
		out = append(out, err.Error())
	}
	out = slices.Concat(out, d.apparmor.Problems(), d.devices.Problems(), d.hooks.Problems(), d.containers.LogProblems())
	st := d.network.Status()
	out = append(out, st.Problems...)
	for _, pod := range st.Pending {
		out = append(out, fmt.Sprintf("network of pod %s: not given back yet, it is tried again", pod))
	}
	return append(out, st.Damaged...)
}

func (d *daemon) close() {
	d.stats.Close()
	if err := d.closeOpen(); err != nil {
		d.log.Error("close", "err", err)
	}
}
