package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	rspec "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/internal/config"
)

// changeField sets a field of a configuration to something else.
func changeField(f reflect.Value, name string) {
	switch {
	case name == "LogLevel":
		f.SetString("warn")
	case f.Kind() == reflect.String:
		f.SetString(f.String() + "/x")
	case f.Kind() == reflect.Slice:
		f.Set(reflect.Append(f, reflect.ValueOf("/x")))
	default:
		f.SetInt(f.Int() + 1)
	}
}

// TestLiveKeysAreInTheSettings: a key that a reload takes over reaches a part.
func TestLiveKeysAreInTheSettings(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	base := config.Default()
	base.PauseImage = "pause" // or its command would mean nothing
	before, err := settingsOf(base, nil, nil, log)
	if err != nil {
		t.Fatal(err)
	}
	fields := reflect.TypeFor[config.Config]()
	seen := 0
	for i := range fields.NumField() {
		name := fields.Field(i).Name
		if name == "Runtimes" {
			continue // see TestOpenRuntimesAgain
		}
		next := base
		changeField(reflect.ValueOf(&next).Elem().Field(i), name)
		merged, pending := base.TakeOver(next)
		after, err := settingsOf(merged, nil, nil, log)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if len(pending) > 0 {
			continue
		}
		seen++
		if reflect.DeepEqual(before, after) {
			t.Errorf("%s is said to be live, and no part gets it", name)
		}
	}
	if seen < 20 {
		t.Errorf("only %d live keys", seen)
	}
}

// TestOpenRuntimesAgain: what is known of a runtime that did not change stays.
func TestOpenRuntimesAgain(t *testing.T) {
	dir := t.TempDir()
	log := slog.New(slog.DiscardHandler)
	runtime := func(args ...string) config.Runtime {
		return config.Runtime{Path: "/nonexistent/x", Root: filepath.Join(dir, "state"), Args: args}
	}
	first := map[string]config.Runtime{"same": runtime(), "changed": runtime(), "gone": runtime()}
	known, err := openRuntimes(context.Background(), first, opened{}, log)
	if err != nil {
		t.Fatal(err)
	}
	second := map[string]config.Runtime{"same": runtime(), "changed": runtime("--debug"), "new": runtime()}
	next, err := openRuntimes(context.Background(), second, opened{first, known}, log)
	if err != nil {
		t.Fatal(err)
	}
	if len(next) != 3 || next["same"] != known["same"] || next["changed"] == known["changed"] || next["new"] == nil {
		t.Errorf("before %v, after %v", known, next)
	}
	if got := next["changed"].Options().Args; !reflect.DeepEqual(got, []string{"--debug"}) {
		t.Errorf("options %v", got)
	}
}

// TestReloadsFollowOneAnother: signals during a reload cause one more, and
// stopping waits for the reload under way.
func TestReloadsFollowOneAnother(t *testing.T) {
	signals := make(chan os.Signal, 1)
	began, end := make(chan struct{}, 10), make(chan struct{})
	ended := 0 // used by the loop, and here after it
	stop := reloadOn(context.Background(), signals, func(context.Context) {
		began <- struct{}{}
		<-end
		ended++
	})
	send := func() {
		select {
		case signals <- unix.SIGHUP:
		default: // as os/signal does
		}
	}
	send()
	<-began
	for range 3 {
		send()
	}
	end <- struct{}{}
	<-began
	select {
	case <-began:
		t.Error("a third reload")
	case <-time.After(20 * time.Millisecond):
	}
	stopped := make(chan struct{})
	go func() {
		stop()
		close(stopped)
	}()
	select {
	case <-stopped:
		t.Error("stopped during a reload")
	case <-time.After(20 * time.Millisecond):
	}
	end <- struct{}{}
	<-stopped
	if ended != 2 {
		t.Errorf("%d reloads, want 2", ended)
	}
}

func TestReloadingTellsTheTime(t *testing.T) {
	var before unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &before); err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`^RELOADING=1\nMONOTONIC_USEC=([0-9]+)$`).FindStringSubmatch(reloading())
	if m == nil {
		t.Fatalf("have %q", reloading())
	}
	usec, err := strconv.ParseInt(m[1], 10, 64)
	if passed := usec - before.Nano()/1000; err != nil || passed < 0 || passed > 10e6 {
		t.Errorf("%s µs, which is %d after the beginning: %v", m[1], passed, err)
	}
}

// TestReloadReachesTheParts: with all of a configuration, and with none that has
// a fault.
func TestReloadReachesTheParts(t *testing.T) {
	b := newBed(t)
	d := b.daemon
	dir := func(name string) string { return filepath.Join(b.dir, name) }
	write := func(name, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(dir(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(dir(name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write("new.d/10.conf", `{"cniVersion": "1.0.0", "name": "new", "type": "plugin"}`)
	write("plugins/plugin", "#!/bin/sh\n")
	write("hooks/a.json", `{"version": "1.0.0", "hook": {"path": "/bin/sh"}, "stages": ["poststop"], "when": {"always": true}}`)
	toml := "cni_conf_dir = \"" + dir("new.d") + "\"\ncni_bin_dir = [\"" + dir("plugins") + "\"]\nhooks_dirs = [\"" + dir("hooks") + "\"]\n" +
		"cdi_spec_dirs = [\"" + dir("cdi") + "\"]\nlog_level = \"error\"\n[runtimes.second]\npath = \"" + dir("recorder") + "\"\n"
	recorder := d.pods.Runtimes()["recorder"]

	write("conf.d/10.toml", toml+"args = [3]\n")
	d.reload(context.Background(), b.flags)
	if f := d.config.Load(); f.failure == nil || d.network.Ready() == nil || d.level.Level() != slog.LevelInfo || len(d.pods.Runtimes()) != 1 {
		t.Fatalf("a fault: %v, network %v, level %v, runtimes %v", f.failure, d.network.Ready(), d.level, d.pods.Runtimes())
	}
	write("conf.d/10.toml", toml)
	d.reload(context.Background(), b.flags)
	if f := d.config.Load(); f.failure != nil || f.cfg.LogLevel != "error" {
		t.Fatalf("%v, %+v", f.failure, f.cfg)
	}
	if err := d.network.Ready(); err != nil || d.network.Status().ConfFile != dir("new.d/10.conf") {
		t.Errorf("network: %v, %+v", err, d.network.Status())
	}
	if d.level.Level() != slog.LevelError {
		t.Errorf("level %v", d.level)
	}
	if now := d.pods.Runtimes(); len(now) != 2 || now["recorder"] != recorder {
		t.Errorf("runtimes %v", now)
	}
	spec := &rspec.Spec{}
	if d.hooks.Apply(spec, false); spec.Hooks == nil {
		t.Errorf("no hook; problems %q", d.hooks.Problems())
	}
	err := d.devices.Inject(spec, &runtimeapi.ContainerConfig{CDIDevices: []*runtimeapi.CDIDevice{{Name: "vendor.com/class=name"}}})
	if err == nil || !strings.Contains(err.Error(), dir("cdi")) {
		t.Errorf("devices: %v", err)
	}
}

func TestFailedReloadIsAProblem(t *testing.T) {
	f := &inForce{read: time.Now(), pending: []string{"root"}}
	if s := f.status(); len(f.problems()) > 0 || s.Failed != nil || len(s.NeedRestart) != 1 || !s.Read.Equal(f.read) {
		t.Errorf("problems %v, status %+v", f.problems(), s)
	}
	f.failure, f.failedAt = errors.New("a.toml:1: x\nb.toml:2: y"), time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	want := "configuration not reloaded at 2026-01-02T03:04:05Z, and the one of before stays: a.toml:1: x; b.toml:2: y"
	if got := strings.Join(f.problems(), "|"); got != want {
		t.Errorf("have %q, want %q", got, want)
	}
	if s := f.status(); s.Failed == nil || !s.Failed.At.Equal(f.failedAt) || s.Failed.Error != f.failure.Error() {
		t.Errorf("status %+v", s)
	}
}
