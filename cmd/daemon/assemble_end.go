package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/gantry-cri/gantry/internal/cgroup"
	"github.com/gantry-cri/gantry/internal/config"
	"github.com/gantry-cri/gantry/internal/container"
	"github.com/gantry-cri/gantry/internal/network"
	"github.com/gantry-cri/gantry/internal/node"
	"github.com/gantry-cri/gantry/internal/sandbox"
	"github.com/gantry-cri/gantry/internal/selinux"
	"github.com/gantry-cri/gantry/internal/storage"
	"github.com/gantry-cri/gantry/internal/systemd"
	"github.com/gantry-cri/gantry/internal/wipe"
)

// Bounds on the parts of a wipe, which ends though something hangs.
const (
	wipePod     = 30 * time.Second // to remove one pod, and as long again to do it by force
	wipeRuntime = 10 * time.Second // one call of a runtime
	wipeCNI     = 20 * time.Second // one DEL
	wipeStrays  = 10 * time.Second // the monitors of which there is no record
)

// assembleToEnd makes the parts of a daemon that are needed to end its pods, and
// nothing that could fail to start for lack of what only new pods need. An image
// store that can't be opened is left aside, for the pods that are to end, and is
// the one problem. The caller calls closeOpen.
func assembleToEnd(ctx context.Context, cfg config.Config, level string) (_ *daemon, problems []error, err error) {
	g := ground{cfg: cfg, cgroups: cgroup.Manager(cfg.CgroupManager), log: endLogger(level)}
	g.cfg.RuntimeTimeout = min(cfg.RuntimeTimeout, wipeRuntime)
	g.cfg.CNITimeout = min(cfg.CNITimeout, wipeCNI)
	if g.facts, err = node.Probe(); err != nil {
		return nil, nil, fmt.Errorf("probe the node: %w", err)
	}
	if g.runtimes, err = openRuntimes(ctx, g.cfg.Runtimes, opened{}, g.log); err != nil {
		return nil, nil, err
	}
	if g.settings, err = settingsOf(g.cfg, g.runtimes, nil, g.log); err != nil {
		return nil, nil, err
	}
	g.labels = selinux.Real(g.facts.SELinux)
	d := &daemon{log: g.log, systemd: systemd.New(systemd.AddressFrom(os.Getenv), g.cfg.RuntimeTimeout)}
	storage.ForwardLibraryLogs(g.log)
	if d.storage, err = storage.Open(storageOptions(g)); err != nil {
		problems = append(problems, fmt.Errorf("the images: %w", err))
		if d.storage, err = standInStorage(g); err != nil {
			return nil, nil, err
		}
	}
	if d.network, err = network.New(networkOptions(g)); err != nil {
		return nil, nil, errors.Join(err, d.closeOpen())
	}
	d.containers = container.NewManager(d.containerEnvironment(g))
	d.pods = sandbox.New(d.podOptions(g))
	return d, problems, nil
}

// standInStorage is an empty store. Writable layers are removed with their
// directory at the end.
func standInStorage(g ground) (*storage.Store, error) {
	root := filepath.Join(g.cfg.RunRoot, wipe.StandIn)
	return storage.Open(storage.Options{Root: root, RunRoot: filepath.Join(root, "run"), Log: g.log})
}

// endLogger logs what goes wrong: who reads it looks at a terminal.
func endLogger(level string) *slog.Logger {
	least := slog.LevelWarn
	if level == "debug" {
		least = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: least}))
}
