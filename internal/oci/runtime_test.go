package oci

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	rspec "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantry-cri/gantry/internal/cgroup"
	"github.com/gantry-cri/gantry/internal/errkind"
	"github.com/gantry-cri/gantry/internal/id"
	"github.com/gantry-cri/gantry/internal/node"
)

// runtimes are the binaries that the driver is tested with. Both are required.
var runtimes = []string{"crun", "runc"}

// TestMain makes the test a subreaper, as a container's monitor is: its
// containers' inits are its children, and are reaped when they end.
func TestMain(m *testing.M) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		fmt.Fprintln(os.Stderr, "become a subreaper:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func openRuntime(t testing.TB, name string) *Runtime {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatal(err)
	}
	r, err := NewRuntime(t.Context(), name, path, filepath.Join(t.TempDir(), "root"), RuntimeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// running is a container with the host's /usr as its file system, and a user
// and an environment of its own.
type running struct {
	t      testing.TB
	r      *Runtime
	id     string
	dir    string // the bundle
	node   node.Facts
	cgroup string
	pid    int
	helper string // for execs
}

const testUser, testGroup, extraGroup = 1234, 2345, 3456

// startContainer starts a container of the driver's tests.
func startContainer(t testing.TB, r *Runtime, args ...string) *running {
	t.Helper()
	return startSpec(t, r, func(c *running) *rspec.Spec { return c.driverSpec(args) })
}

// startSpec starts the container that spec, which may call for the container's
// own fields, describes.
func startSpec(t testing.TB, r *Runtime, spec func(c *running) *rspec.Spec) *running {
	t.Helper()
	facts, err := node.Probe()
	if err != nil {
		t.Fatal(err)
	}
	c := &running{t: t, r: r, id: string(id.NewContainer()), dir: t.TempDir(), node: facts}
	c.cgroup = "/gantry-test-oci-" + c.id
	if err := os.Chmod(c.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	c.makeRootFS()
	if err := WriteBundle(c.dir, spec(c)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.remove)
	c.create()
	if err := r.Start(t.Context(), c.id); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *running) config() string { return filepath.Join(c.dir, "config.json") }

func (c *running) rootfs() string { return filepath.Join(c.dir, "rootfs") }

// makeRootFS makes a root file system that wants /usr mounted.
func (c *running) makeRootFS() {
	rootfs := c.rootfs()
	for _, dir := range []string{"usr", "proc", "dev", "sys", "tmp", "etc"} {
		if err := os.MkdirAll(filepath.Join(rootfs, dir), 0o755); err != nil {
			c.t.Fatal(err)
		}
	}
	for _, link := range []string{"bin", "lib", "lib64", "sbin"} {
		if err := os.Symlink("usr/"+link, filepath.Join(rootfs, link)); err != nil {
			c.t.Fatal(err)
		}
	}
}

// driverSpec describes a container whose process has a bit of everything.
func (c *running) driverSpec(args []string) *rspec.Spec {
	score := 321
	spec := &rspec.Spec{
		Version: c.r.OCIVersion(),
		Root:    &rspec.Root{Path: "rootfs"},
		Process: &rspec.Process{
			Args: args, Cwd: "/tmp", NoNewPrivileges: true, OOMScoreAdj: &score,
			Env:          []string{"PATH=/usr/bin:/bin", "COLOUR=green"},
			User:         rspec.User{UID: testUser, GID: testGroup, AdditionalGids: []uint32{testGroup, extraGroup}},
			Capabilities: &rspec.LinuxCapabilities{Bounding: []string{"CAP_KILL"}},
			Rlimits:      []rspec.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 77, Hard: 88}},
		},
		Mounts: []rspec.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "mode=755"}},
			{Destination: "/usr", Type: "bind", Source: "/usr", Options: []string{"rbind", "ro"}},
		},
		Linux: &rspec.Linux{
			CgroupsPath: c.cgroup,
			Namespaces:  []rspec.LinuxNamespace{{Type: "pid"}, {Type: "mount"}, {Type: "ipc"}, {Type: "uts"}},
			Seccomp:     &rspec.LinuxSeccomp{DefaultAction: rspec.ActAllow, Architectures: []rspec.Arch{rspec.ArchX86_64}},
		},
	}
	spec.Linux.Seccomp.Syscalls = []rspec.LinuxSyscall{{Names: []string{"sethostname"}, Action: rspec.ActErrno}}
	return spec
}

// create runs the runtime's create as the monitor does.
func (c *running) create() {
	pidFile := filepath.Join(c.dir, "pid")
	argv := c.r.CreateArgs(CreateArgs{ID: c.id, Bundle: c.dir, PidFile: pidFile})
	cmd := exec.Command(argv[0], argv[1:]...)
	stderr, err := os.Create(filepath.Join(c.dir, "stderr"))
	if err != nil {
		c.t.Fatal(err)
	}
	defer stderr.Close()
	cmd.Stderr = stderr
	if err := cmd.Run(); err != nil {
		text, _ := os.ReadFile(stderr.Name())
		c.t.Fatalf("%v: %v: %s", argv, err, text)
	}
	pids := readPIDs(pidFile)
	if len(pids) != 1 {
		c.t.Fatalf("%s lists %v", pidFile, pids)
	}
	c.pid = pids[0]
}

// stop kills the init and reaps it.
func (c *running) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := c.r.Kill(ctx, c.id, unix.SIGKILL, false); err != nil {
		c.t.Error(err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		if p, ok := readProc(c.pid); !ok || p.state == 'Z' {
			break
		}
		// An init waits for the processes of its PID namespace, and crun leaves
		// a child to its reaper when an exec fails: reap as an init would.
		reapZombies()
		if time.Now().After(deadline) {
			c.t.Fatal("the container's init does not die")
		}
	}
	reapZombies()
}

// reapZombies reaps all children that have ended. No test calls it while it
// waits for a child of its own.
func reapZombies() {
	for _, pid := range children(os.Getpid()) {
		if p, ok := readProc(pid); ok && p.state == 'Z' {
			_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil)
		}
	}
}

func (c *running) remove() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if state, err := c.r.State(ctx, c.id); err == nil && state.Status != StatusStopped {
		c.stop()
	}
	err := errors.Join(c.r.Delete(ctx, c.id, true), cgroup.KillAll(ctx, c.node, c.cgroup), cgroup.Remove(ctx, c.node, c.cgroup))
	if err != nil {
		c.t.Error(err)
	}
}

// options are those of an exec in the container.
func (c *running) options(timeout time.Duration, args ...string) ExecSyncOptions {
	return ExecSyncOptions{
		Args: args, Timeout: timeout, Config: c.config(), Dir: c.dir,
		CgroupProcs: cgroup.ProcsFiles(c.node, c.cgroup), Helper: c.helper,
	}
}

func (c *running) exec(timeout time.Duration, args ...string) (ExecResult, error) {
	return c.r.ExecSync(c.t.Context(), c.id, c.options(timeout, args...))
}

func TestLifecycle(t *testing.T) {
	for _, name := range runtimes {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			r := openRuntime(t, name)
			if states, err := r.List(ctx); err != nil || len(states) != 0 {
				t.Errorf("List of an empty root = %v, %v", states, err)
			}
			c := startContainer(t, r, "sleep", "1000")
			state, err := r.State(ctx, c.id)
			if err != nil || state.Status != StatusRunning || state.PID != c.pid {
				t.Errorf("State = %+v, %v", state, err)
			}
			states, err := r.List(ctx)
			if err != nil || len(states) != 1 || states[0].ID != c.id {
				t.Errorf("List = %v, %v", states, err)
			}
			if err := r.Start(ctx, c.id); err == nil {
				t.Error("a second Start is no error")
			}
			c.stop()
			if state, err := r.State(ctx, c.id); err != nil || state.Status != StatusStopped {
				t.Errorf("State = %+v, %v", state, err)
			}
			if err := r.Kill(ctx, c.id, unix.SIGTERM, false); err != nil && errkind.Of(err) != errkind.Precondition {
				t.Errorf("Kill of a stopped container: kind %v, %v", errkind.Of(err), err)
			}
			for range 2 {
				if err := r.Delete(ctx, c.id, false); err != nil {
					t.Error(err)
				}
			}
			if _, err := r.State(ctx, c.id); errkind.Of(err) != errkind.NotFound {
				t.Errorf("State of a deleted container: kind %v, %v", errkind.Of(err), err)
			}
			if err := r.Kill(ctx, c.id, unix.SIGTERM, true); errkind.Of(err) != errkind.NotFound {
				t.Errorf("Kill of a deleted container: kind %v, %v", errkind.Of(err), err)
			}
		})
	}
}

func TestVersions(t *testing.T) {
	for _, name := range runtimes {
		r := openRuntime(t, name)
		t.Logf("%s %s: ociVersion %s, features %v", name, r.Version(), r.OCIVersion(), r.Features() != nil)
		if r.Name() != name || !r.SharesKernel() || r.Version() == "" || !strings.HasPrefix(r.OCIVersion(), "1.") {
			t.Errorf("%s: name %q, version %q, ociVersion %q", name, r.Name(), r.Version(), r.OCIVersion())
		}
	}
	for newest, want := range map[string]string{
		"1.0.0": "1.0.0", "1.0.2-dev": "1.0.2-dev", "1.2.1": "1.2.1", "1.3.0": "1.3.0", "1.4.0": rspec.Version,
		"1.300.0": rspec.Version, "1.1.0-rc.1": "1.1.0-rc.1", "2.0.0": "1.0.0", "": "1.0.0", "latest": "1.0.0", "1.-1.0": "1.0.0",
	} {
		if got := acceptedVersion(newest); got != want {
			t.Errorf("acceptedVersion(%q) = %q, want %q", newest, got, want)
		}
	}
}

// script makes an executable that stands for a runtime.
func script(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "runtime")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestProbeAgain(t *testing.T) {
	path := script(t, `[ "$3" = --version ] && echo "x version 1" && echo "spec: 1.1.0" && exit; exit 1`)
	r, err := NewRuntime(t.Context(), "x", path, "/nowhere", RuntimeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if r.Version() != "1" || r.OCIVersion() != "1.1.0" || r.Features() != nil {
		t.Errorf("%q %q %v", r.Version(), r.OCIVersion(), r.Features())
	}
	newer := script(t, `case $3 in --version) echo "x version 2";; features) echo '{"ociVersionMin":"1.0.0","ociVersionMax":"1.2.0"}';; esac`)
	if err := os.Rename(newer, path); err != nil {
		t.Fatal(err)
	}
	if err := r.Ready(t.Context()); err != nil || r.Version() != "2" || r.OCIVersion() != "1.2.0" || r.Features() == nil {
		t.Errorf("after an upgrade: %v, %q %q %v", err, r.Version(), r.OCIVersion(), r.Features())
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := r.Ready(t.Context()); errkind.Of(err) != errkind.Precondition || r.OCIVersion() != "1.2.0" || r.Problem() == nil {
		t.Errorf("after the binary went away: %v, %q, %v", err, r.OCIVersion(), r.Problem())
	}
}

// TestAbsentRuntime: a binary that is missing or broken is probed again when
// it is asked for.
func TestAbsentRuntime(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	r, err := NewRuntime(t.Context(), "not-there-yet", "", "/nowhere", RuntimeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := r.Ready(t.Context()); errkind.Of(err) != errkind.Precondition || !strings.Contains(err.Error(), "not-there-yet") {
			t.Errorf("not there: %v", err)
		}
	}
	if r.Problem() == nil || r.Path() != "" || r.OCIVersion() != oldestOCIVersion || r.SharesKernel() {
		t.Errorf("%v, path %q, %q, %v", r.Problem(), r.Path(), r.OCIVersion(), r.SharesKernel())
	}
	if r.Presume("runc"); !r.SharesKernel() {
		t.Error("what it was before is not believed")
	}
	path := filepath.Join(dir, "not-there-yet")
	for _, s := range []struct{ script, fails string }{{"echo broken >&2; exit 3", "broken"}, {`echo "x version 1"`, ""}} {
		if err := os.Rename(script(t, s.script), path); err != nil {
			t.Fatal(err)
		}
		err := r.Ready(t.Context())
		if (err == nil) != (s.fails == "") || err != nil && !strings.Contains(err.Error(), s.fails) || (r.Problem() == nil) != (err == nil) {
			t.Errorf("with %q: %v, %v", s.script, err, r.Problem())
		}
	}
	if r.Path() != path || r.Version() != "1" || r.SharesKernel() {
		t.Errorf("path %q, version %q", r.Path(), r.Version())
	}
}

// TestDeleteWithoutBinary: what a broken binary left is removed without it, and
// what a working one refuses to delete is not.
func TestDeleteWithoutBinary(t *testing.T) {
	root := t.TempDir()
	left := func(names ...string) {
		for _, name := range names {
			if err := os.MkdirAll(filepath.Join(root, name, "x"), 0o700); err != nil {
				t.Fatal(err)
			}
		}
	}
	there := func(name string) bool { _, err := os.Stat(filepath.Join(root, name)); return err == nil }
	left("aaaa", "aaaa_sandbox.state", "bbbb")
	r, err := NewRuntime(t.Context(), "x", script(t, `[ "$3" = --version ] && echo "x version 1" && exit; exit 1`), root, RuntimeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Delete(t.Context(), "aaaa", true); err == nil || !there("aaaa") {
		t.Errorf("refused by a runtime that works: %v", err)
	}
	for _, name := range []string{"missing", "broken"} {
		left("aaaa", "aaaa_sandbox.state", "bbbb")
		if name == "missing" {
			if err := os.Remove(r.Path()); err != nil {
				t.Fatal(err)
			}
		} else if err := os.Rename(script(t, "exit 1"), r.Path()); err != nil {
			t.Fatal(err)
		}
		if err := r.Delete(t.Context(), "aaaa", false); err == nil {
			t.Errorf("%s: deleted without force", name)
		}
		if err := r.Delete(t.Context(), "aaaa", true); err != nil || there("aaaa") || there("aaaa_sandbox.state") || !there("bbbb") {
			t.Errorf("%s: %v, %v %v %v", name, err, there("aaaa"), there("aaaa_sandbox.state"), there("bbbb"))
		}
	}
}

// TestHungRuntime has every command hang, with a child that holds the pipes.
func TestHungRuntime(t *testing.T) {
	path := script(t, `[ "$3" = --version ] && echo "x version 1" && exit; [ "$3" = features ] && exit 1
		sleep 1000 & echo $! > "$2"; wait; sleep 1000`)
	child := filepath.Join(t.TempDir(), "child")
	r, err := NewRuntime(t.Context(), "x", path, child, RuntimeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(t.TempDir(), "config.json")
	if err := os.WriteFile(config, []byte(`{"process":{}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, call := range map[string]func(context.Context) error{
		"Start":  func(ctx context.Context) error { return r.Start(ctx, "x") },
		"Kill":   func(ctx context.Context) error { return r.Kill(ctx, "x", unix.SIGKILL, true) },
		"Delete": func(ctx context.Context) error { return r.Delete(ctx, "x", true) },
		"State":  func(ctx context.Context) error { _, err := r.State(ctx, "x"); return err },
		"List":   func(ctx context.Context) error { _, err := r.List(ctx); return err },
		"ExecSync": func(ctx context.Context) error {
			_, err := r.ExecSync(ctx, "x", ExecSyncOptions{Args: []string{"true"}, Config: config, Dir: t.TempDir()})
			return err
		},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		begin := time.Now()
		err := call(ctx)
		cancel()
		if errkind.Of(err) != errkind.Timeout {
			t.Errorf("%s: kind %v, %v", name, errkind.Of(err), err)
		}
		if took := time.Since(begin); took > 10*time.Second {
			t.Errorf("%s took %s", name, took)
		}
		for _, pid := range readPIDs(child) {
			if !eventually(func() bool { p, ok := readProc(pid); return !ok || p.state == 'Z' }) {
				t.Errorf("%s leaves process %d", name, pid)
			}
		}
	}
}

// eventually gives what was killed a moment to be gone.
func eventually(done func() bool) bool {
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		if done() {
			return true
		}
		time.Sleep(5 * time.Millisecond)
	}
	return false
}

func TestRuntimeEnv(t *testing.T) {
	got := runtimeEnv([]string{"PATH=/bin", "NOTIFY_SOCKET=/x", "LISTEN_FDS=1", "LISTEN_PID=2", "HOME=/"})
	if !slices.Equal(got, []string{"PATH=/bin", "HOME=/"}) {
		t.Error(got)
	}
}

func TestTail(t *testing.T) {
	w := &tail{max: 5}
	for _, s := range []string{"abc", "defgh", "\xffi "} {
		if _, err := w.Write([]byte(s)); err != nil {
			t.Fatal(err)
		}
	}
	if got := w.String(); got != "gh?i" {
		t.Errorf("%q", got)
	}
	b := &bounded{max: 3}
	if n, err := b.Write([]byte("abcd")); n != 4 || err != nil || !b.over || !bytes.Equal(b.Bytes(), []byte("abc")) {
		t.Error(n, err, b.over, b.String())
	}
}

func TestEndedRuntimeRunsNothing(t *testing.T) {
	r, err := NewRuntime(context.Background(), "x", "/bin/true", t.TempDir(), RuntimeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.command(context.Background(), "list"); err != nil {
		t.Errorf("before its end: %v", err)
	}
	r.End()
	if _, err := r.command(context.Background(), "list"); err == nil || !strings.Contains(err.Error(), "not used any more") {
		t.Errorf("after its end: %v", err)
	}
}
