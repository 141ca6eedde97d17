package main

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"time"

	"github.com/gantry-cri/gantry/internal/config"
	"github.com/gantry-cri/gantry/internal/container"
	"github.com/gantry-cri/gantry/internal/image"
	"github.com/gantry-cri/gantry/internal/network"
	"github.com/gantry-cri/gantry/internal/oci"
	"github.com/gantry-cri/gantry/internal/sandbox"
	"github.com/gantry-cri/gantry/internal/storage"
)

// settings are what the parts take from the configuration and can change while
// they work: the keys of which package config says that they are live.
type settings struct {
	network    network.Settings
	containers container.Settings
	pods       sandbox.Settings
	images     image.Options
	cdiDirs    []string
	hooksDirs  []string
	streamIdle time.Duration
	logLevel   slog.Level
}

// settingsOf makes settings of a configuration and of the runtimes that were
// opened for it. The store is handed on.
func settingsOf(cfg config.Config, runtimes map[string]*oci.Runtime, store *storage.Store, log *slog.Logger) (settings, error) {
	level, err := logLevel(cfg)
	return settings{
		network: network.Settings{ConfDir: cfg.CNIConfDir, BinDirs: cfg.CNIBinDirs, Timeout: cfg.CNITimeout},
		containers: container.Settings{
			CreateTimeout:  cfg.RuntimeTimeout,
			RuntimeTimeout: cfg.RuntimeTimeout,
			ExecOutputMax:  int(cfg.ExecOutputMax),
			LogSizeMax:     cfg.LogSizeMax,
			Journal:        cfg.JournalSocket,
			PidsLimit:      cfg.PidsLimit,
			SeccompProfile: cfg.SeccompProfile,
		},
		pods: sandbox.Settings{
			Runtimes:       runtimes,
			DefaultRuntime: cfg.DefaultRuntime,
			CreateTimeout:  cfg.RuntimeTimeout,
			RuntimeTimeout: cfg.RuntimeTimeout,
			EventQueue:     cfg.EventQueue,
			SeccompProfile: cfg.SeccompProfile,
			Pause:          sandbox.Pause{Image: cfg.PauseImage, Command: cfg.PauseCommand},
		},
		images:     imageOptions(cfg, store, log),
		cdiDirs:    cfg.CDISpecDirs,
		hooksDirs:  cfg.HooksDirs,
		streamIdle: cfg.StreamIdleTimeout,
		logLevel:   level,
	}, err
}

func imageOptions(cfg config.Config, store *storage.Store, log *slog.Logger) image.Options {
	o := image.Options{
		Store:             store,
		RegistriesConf:    cfg.RegistriesConf,
		Policy:            cfg.Policy,
		PolicyDir:         cfg.PolicyDir,
		CertsDir:          cfg.CertsDir,
		RegistriesDir:     cfg.SignaturesDir,
		DecryptionKeysDir: cfg.DecryptionKeysPath,
		Pinned:            slices.Clone(cfg.PinnedImages),
		RegistriesConfDir: cfg.RegistriesConf + ".d",
		AuthFile:          cfg.AuthFile,
		TempDir:           filepath.Join(cfg.Root, "tmp"),
		StallTimeout:      cfg.PullStallTimeout,
		MaxDownloads:      uint(cfg.MaxParallelDownloads),
		Limits: image.Limits{
			LayerBytes: cfg.MaxLayerBytes, LayerEntries: cfg.MaxLayerEntries,
			ImageBytes: cfg.MaxImageBytes, ImageLayers: cfg.MaxImageLayers, DocumentBytes: cfg.MaxManifestBytes,
		},
		UserAgent: "gantry/" + version,
		Log:       log,
	}
	if cfg.PauseImage != "" {
		o.Pinned = append(o.Pinned, cfg.PauseImage)
	}
	return o
}

// apply hands settings to the parts; what is under way ends with the old ones.
// When it fails, nothing has changed.
func (d *daemon) apply(s settings) error {
	if err := d.images.Configure(s.images); err != nil { // the only one that can fail
		return fmt.Errorf("configuration: %w", err)
	}
	d.level.Set(s.logLevel)
	storage.FollowLogLevel(d.log)
	d.network.Configure(s.network)
	d.systemd.SetTimeout(s.pods.RuntimeTimeout)
	d.containers.Configure(s.containers)
	d.pods.Configure(s.pods)
	d.devices.Set(s.cdiDirs)
	d.hooks.Set(s.hooksDirs)
	d.streams.SetIdleTimeout(s.streamIdle)
	return nil
}
