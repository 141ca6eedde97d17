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

// assemble makes the parts and connects them. Nothing of a pod is touched yet.
func assemble(ctx context.Context, loaded *config.Loaded, log *slog.Logger) (*daemon, error) {
	cfg, err := loaded.ResolveRuntimes(exec.LookPath)
	if err != nil {
		return nil, err
	}
	facts, err := node.Probe()
	if err != nil {
		return nil, fmt.Errorf("probe the node: %w", err)
	}
	cgroups, err := cgroupManager(cfg, log)
	if err != nil {
		return nil, err
	}
	runtimes, err := openRuntimes(ctx, cfg, log)
	if err != nil {
		return nil, err
	}
	progs, err := programs.Install(filepath.Join(cfg.Root, "bin"))
	if err != nil {
		return nil, fmt.Errorf("install the monitor and pause: %w", err)
	}
	d := &daemon{log: log, devices: cdi.New(cfg.CDISpecDirs), hooks: hooks.New(cfg.HooksDirs)}
	d.apparmor = apparmor.New(apparmor.Options{Enabled: facts.AppArmor, Default: cfg.AppArmorProfile, Log: log})
	labels := selinux.Real(facts.SELinux)
	storage.ForwardLibraryLogs(log)
	if d.storage, err = storage.Open(storage.Options{Root: cfg.Root, RunRoot: cfg.RunRoot, Log: log, UsagePeriod: cfg.StatsCollectionPeriod}); err != nil {
		return nil, err
	}
	if d.images, err = image.New(imageOptions(cfg, d.storage, log)); err != nil {
		return nil, errors.Join(err, d.storage.Close())
	}
	d.network, err = network.New(network.Options{
		ConfDir:  cfg.CNIConfDir,
		BinDirs:  cfg.CNIBinDirs,
		StateDir: filepath.Join(cfg.Root, "network"),
		Timeout:  cfg.CNITimeout,
		Log:      log,
	})
	if err != nil {
		return nil, errors.Join(err, d.images.Close(), d.storage.Close())
	}
	d.containers = container.NewManager(&container.Environment{
		Storage:         d.storage,
		Node:            facts,
		Log:             log,
		CreateTimeout:   cfg.RuntimeTimeout,
		RuntimeTimeout:  cfg.RuntimeTimeout,
		ExecWait:        progs.ExecWait,
		StandIn:         progs.StandIn,
		ExecOutputMax:   int(cfg.ExecOutputMax),
		LogSizeMax:      cfg.LogSizeMax,
		Journal:         cfg.JournalSocket,
		PidsLimit:       cfg.PidsLimit,
		SeccompProfile:  cfg.SeccompProfile,
		AppArmorDefault: cfg.AppArmorProfile,
		AppArmor:        d.apparmor,
		SELinux:         labels,
		Devices:         d.devices,
		Hooks:           d.hooks,
	})
	d.pods = sandbox.New(sandbox.Options{
		RunRoot:          cfg.RunRoot,
		Programs:         progs,
		Node:             facts,
		Network:          d.network,
		Containers:       d.containers,
		Storage:          d.storage,
		Runtimes:         runtimes,
		DefaultRuntime:   cfg.DefaultRuntime,
		Cgroups:          cgroups,
		Systemd:          systemd.New(systemd.AddressFrom(os.Getenv), cfg.RuntimeTimeout),
		CgroupParent:     cfg.CgroupParent,
		CreateTimeout:    cfg.RuntimeTimeout,
		RuntimeTimeout:   cfg.RuntimeTimeout,
		EventQueue:       cfg.EventQueue,
		Pause:            d.pauseImage(cfg),
		SeccompProfile:   cfg.SeccompProfile,
		AppArmorDefault:  cfg.AppArmorProfile,
		AppArmor:         d.apparmor,
		SELinux:          labels,
		Log:              log,
		NoUserNamespaces: probeUserNamespaces(progs, d.storage),
	})
	if d.streams, err = openStreams(cfg, server.Backend{Pods: d.pods, Containers: d.containers}, log); err != nil {
		return nil, errors.Join(err, d.network.Close(), d.images.Close(), d.storage.Close())
	}
	d.stats = d.openStats(cfg, facts)
	d.server = server.New(server.Options{
		Version:        version,
		Pods:           d.pods,
		Containers:     d.containers,
		Images:         d.images,
		Network:        d.network,
		Streams:        d.streams,
		Stats:          d.stats,
		SystemdCgroups: cgroups == cgroup.Systemd,
		Log:            log,
		MaxMessageSize: cfg.GRPCMaxMessageSize,
		Config:         cfg,
		Problems:       d.problems,
	})
	return d, nil
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

// openRuntimes probes the handlers' binaries, at the same time. One that can't
// be used is probed again when a pod asks for it, and stops nothing else.
func openRuntimes(ctx context.Context, cfg config.Config, log *slog.Logger) (map[string]*oci.Runtime, error) {
	var mu sync.Mutex
	runtimes := make(map[string]*oci.Runtime) // guarded by mu
	var probes errgroup.Group
	for name, r := range cfg.Runtimes {
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

func imageOptions(cfg config.Config, store *storage.Store, log *slog.Logger) image.Options {
	o := image.Options{
		Store:             store,
		RegistriesConf:    cfg.RegistriesConf,
		Policy:            cfg.Policy,
		RegistriesConfDir: cfg.RegistriesConf + ".d",
		AuthFile:          cfg.AuthFile,
		TempDir:           filepath.Join(cfg.Root, "tmp"),
		StallTimeout:      cfg.PullStallTimeout,
		MaxDownloads:      uint(cfg.MaxParallelDownloads),
		UserAgent:         "gantry/" + version,
		Log:               log,
	}
	if cfg.PauseImage != "" {
		o.Pinned = []string{cfg.PauseImage}
	}
	return o
}

// pauseImage returns how sandboxes find the configured pause image; nil for
// the built-in pause. The image is pulled when a pod first needs it.
func (d *daemon) pauseImage(cfg config.Config) sandbox.PauseImage {
	if cfg.PauseImage == "" {
		return nil
	}
	return func(ctx context.Context) (storage.Image, []string, error) {
		img, err := d.images.Resolve(cfg.PauseImage)
		if err != nil {
			img, err = d.images.Pull(ctx, image.PullRequest{Image: cfg.PauseImage})
		}
		return img, cfg.PauseCommand, err
	}
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
	known := make(map[id.Pod]bool)
	for _, p := range d.pods.List(nil) {
		known[p.ID()] = true
	}
	go d.network.Recover(ctx, func(pod id.Pod) bool { return known[pod] })
	return nil
}

// problems lists what is wrong without stopping the daemon.
func (d *daemon) problems() []string {
	out := slices.Concat(d.pods.RuntimeProblems(), d.pods.Damaged())
	for _, err := range d.storage.Problems() {
		out = append(out, err.Error())
	}
	out = slices.Concat(out, d.apparmor.Problems(), d.devices.Problems(), d.hooks.Problems(), d.containers.LogProblems())
	st := d.network.Status()
	out = append(out, st.Problems...)
	return append(out, st.Damaged...)
}

func (d *daemon) close() {
	d.stats.Close()
	if err := errors.Join(d.streams.Close(), d.network.Close(), d.images.Close(), d.storage.Close()); err != nil {
		d.log.Error("close", "err", err)
	}
}
