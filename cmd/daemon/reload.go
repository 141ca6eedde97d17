package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-cri/gantry/internal/config"
	"github.com/gantry-cri/gantry/internal/control"
)

// inForce is the configuration that the daemon works with, and what became of
// the last reload. It never changes; a reload replaces it.
type inForce struct {
	loaded  config.Config // of files and flags, but for keys that need a restart
	cfg     config.Config // the same, with its runtimes found
	read    time.Time     // when that was read
	pending []string      // keys with newer values, which need a restart

	failure  error // of the last reload; nil if that succeeded
	failedAt time.Time
}

// reloadOn calls reload whenever a signal comes, until stop is called, which
// waits for a reload under way. signals has room for one: what comes during a
// reload causes one more after it, for it may have read the files too early.
func reloadOn(ctx context.Context, signals <-chan os.Signal, reload func(context.Context)) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var loop sync.WaitGroup
	loop.Go(func() {
		for {
			select {
			case <-signals:
				reload(ctx)
			case <-ctx.Done():
				return
			}
		}
	})
	return func() {
		cancel()
		loop.Wait()
	}
}

// reload reads the configuration again, and takes over what can change while
// the daemon runs. One that can't be used changes nothing.
func (d *daemon) reload(ctx context.Context, flags *config.Flags) {
	notify(d.log, reloading())
	before := d.config.Load()
	next, err := d.takeOver(ctx, before, flags)
	if ctx.Err() != nil {
		return // the daemon is stopping, and systemd knows
	}
	if err != nil {
		failed := *before
		failed.failure, failed.failedAt = err, time.Now()
		d.config.Store(&failed)
		d.log.Error("configuration not reloaded: the one of before stays", "err", err)
		notify(d.log, "READY=1\nSTATUS=Configuration not reloaded, see gantryd status")
		return
	}
	d.config.Store(next)
	d.log.Info("configuration reloaded", "changed", config.Changes(before.cfg, next.cfg))
	if len(next.pending) > 0 {
		d.log.Warn("configuration: some keys need a restart of gantryd; their old values stay until then", "keys", next.pending)
	}
	notify(d.log, "READY=1\nSTATUS=")
}

// takeOver makes a newly read configuration the parts'. An error has changed nothing.
func (d *daemon) takeOver(ctx context.Context, before *inForce, flags *config.Flags) (*inForce, error) {
	next := &inForce{read: time.Now()}
	loaded, err := config.Load(flags)
	if err != nil {
		return nil, err
	}
	next.loaded, next.pending = before.loaded.TakeOver(loaded.Config)
	if next.cfg, err = next.loaded.ResolveRuntimes(exec.LookPath); err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	runtimes, err := openRuntimes(ctx, next.cfg.Runtimes, opened{before.cfg.Runtimes, d.pods.Runtimes()}, d.log)
	if err != nil {
		return nil, err
	}
	s, err := settingsOf(next.cfg, runtimes, d.storage, d.log)
	if err != nil {
		return nil, err
	}
	return next, d.apply(s)
}

// reloading tells systemd that a reload begins, and when (sd_notify(3)): it
// takes the daemon for ready again at the next READY=1.
func reloading() string {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) // it can't fail for this clock
	return fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", now.Nano()/1000)
}

// problems tells of a failed reload.
func (f *inForce) problems() []string {
	if f.failure == nil {
		return nil
	}
	return []string{fmt.Sprintf("configuration not reloaded at %s, and the one of before stays: %s",
		f.failedAt.Format(time.RFC3339), strings.ReplaceAll(f.failure.Error(), "\n", "; "))}
}

func (f *inForce) status() control.Configuration {
	out := control.Configuration{Read: f.read, NeedRestart: f.pending}
	if f.failure != nil {
		out.Failed = &control.Failure{At: f.failedAt, Error: f.failure.Error()}
	}
	return out
}
