package oci

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-cri/gantry/internal/errkind"
)

// standIn is a stand-in whose three commands are shell scripts. The test's
// process is the subreaper that inherits it.
type standIn struct {
	dir     string
	program string
	output  *os.File // what its commands have written
}

func newStandIn(t *testing.T) standIn {
	t.Helper()
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0); err != nil {
			t.Error(err)
		}
	})
	dir := t.TempDir()
	output, err := os.Create(filepath.Join(dir, "output"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { output.Close() })
	return standIn{dir: dir, program: buildC(t, "../../standin/standin.c"), output: output}
}

// create runs it and returns its exit status and the PID of what stays.
func (s standIn) create(t *testing.T, create, start, wait string) (status, pid int) {
	t.Helper()
	pidFile := filepath.Join(s.dir, "pid")
	cmd := exec.Command(s.program, pidFile, filepath.Join(s.dir, standInSocket),
		"/bin/sh", "-c", create, "--", "/bin/sh", "-c", start, "--", "/bin/sh", "-c", wait)
	cmd.Stdout, cmd.Stderr = s.output, s.output
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	if pids := readPIDs(pidFile); len(pids) == 1 {
		return cmd.ProcessState.ExitCode(), pids[0]
	}
	return cmd.ProcessState.ExitCode(), 0
}

func (s standIn) text(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(s.output.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// reap waits for the end of an inherited process.
func reap(t *testing.T, pid int) syscall.WaitStatus {
	t.Helper()
	var status syscall.WaitStatus
	for {
		_, err := syscall.Wait4(pid, &status, 0, nil)
		if err == nil {
			return status
		}
		if err != syscall.EINTR {
			t.Fatalf("wait for process %d: %v", pid, err)
		}
	}
}

func TestStandIn(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, c := range []struct {
		name, wait string
		code       int
		signal     syscall.Signal
	}{
		{"ends well", `echo '{"id":"x","exitStatus":0}'`, 0, -1},
		{"ends with a code", `echo '{"id":"x","exitStatus":7}'`, 7, -1},
		{"ends by a signal", `echo '{"id":"x","exitStatus":137}'`, 137, -1},
		{"nobody knows how it ends", `echo nothing; exit 1`, -1, syscall.SIGKILL},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStandIn(t)
			status, pid := s.create(t, "echo created", "echo started", c.wait)
			if status != 0 || pid == 0 {
				t.Fatalf("create: status %d, pid %d: %s", status, pid, s.text(t))
			}
			if p, ok := readProc(pid); !ok || p.ppid != os.Getpid() {
				t.Errorf("the process that stays is %+v", p)
			}
			if got := s.text(t); got != "created\n" {
				t.Errorf("before the start: %q", got)
			}
			if status, err := askStandIn(ctx, s.dir); err != nil || status != 0 {
				t.Errorf("start: %d, %v", status, err)
			}
			ended := reap(t, pid)
			if ended.ExitStatus() != c.code || ended.Signal() != c.signal {
				t.Errorf("it ended with %d, signal %d", ended.ExitStatus(), ended.Signal())
			}
			if got := s.text(t); got != "created\nstarted\n" {
				t.Errorf("output %q", got)
			}
			if _, err := askStandIn(ctx, s.dir); err == nil {
				t.Error("it can be started once more")
			}
		})
	}
}

func TestStandInFails(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s := newStandIn(t)
	if status, pid := s.create(t, "echo no >&2; exit 3", "true", "true"); status != 3 || pid != 0 {
		t.Errorf("create: status %d, pid %d", status, pid)
	}
	if got := s.text(t); got != "no\n" {
		t.Errorf("output %q", got)
	}
	status, pid := s.create(t, "true", "[ -e go ] || exit 4", `echo '{"exitStatus":5}'`)
	if status != 0 {
		t.Fatalf("create: status %d", status)
	}
	if status, err := askStandIn(ctx, s.dir); err != nil || status != 4 {
		t.Errorf("a start that fails: %d, %v", status, err)
	}
	touchFile(t, filepath.Join(s.dir, "go"))
	if status, err := askStandIn(ctx, s.dir); err != nil || status != 0 {
		t.Errorf("the next start: %d, %v", status, err)
	}
	if got := reap(t, pid).ExitStatus(); got != 5 {
		t.Errorf("exit status %d", got)
	}

	_, pid = s.create(t, "true", "sleep 1000", "true")
	short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	r, err := NewRuntime(ctx, "x", "/nowhere", s.dir, RuntimeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.StartStandIn(short, "x", s.dir); errkind.Of(err) != errkind.Timeout {
		t.Errorf("a start that hangs: %v", err)
	}
	for _, child := range children(pid) {
		if err := unix.Kill(child, unix.SIGKILL); err != nil {
			t.Error(err)
		}
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Error(err)
	}
	reap(t, pid)
}

func touchFile(t *testing.T, path string) {
	t.Helper()
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestSandboxedCommands: a binary that calls itself runsc gets its options before
// the handler's, and a stand-in's command line holds its three commands.
func TestSandboxedCommands(t *testing.T) {
	path := script(t, `case "$*" in *--version*) echo "runsc version 1"; echo "spec: 1.1.0";; *) exit 1;; esac`)
	r, err := NewRuntime(t.Context(), "any", path, "/root", RuntimeOptions{Args: []string{"--platform=systrap"}})
	if err != nil {
		t.Fatal(err)
	}
	if !r.Sandboxed() || !r.KnownSandboxed() || !r.OwnNetwork() || r.SharesKernel() {
		t.Error("it is not taken for runsc")
	}
	base := []string{path, "--root", "/root", "--overlay2=none", "--gofer-network-namespace=new", "--platform=systrap"}
	got := r.StandInArgs("/standin", CreateArgs{ID: "c", Bundle: "/b", PidFile: "/b/pid", ConsoleSocket: "/s"})
	want := slices.Concat([]string{"/standin", "/b/pid", "/b/start.sock"},
		base, []string{"create", "--bundle", "/b", "--console-socket", "/s", "c", "--"},
		base, []string{"--log", "/b/start.log", "--log-format", "json", "start", "c", "--"},
		base, []string{"wait", "c"})
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	inside := &insideExec{runtime: r, container: "c", pidFile: "/b/inside"}
	want = slices.Concat([]string{"-k", "/b/inside", strconv.Itoa(len(base) + 4)}, base, []string{"kill", "--pgid=", "c", "KILL"})
	if got := inside.helperArgs(); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	host, err := NewRuntime(t.Context(), "any", path, "/root", RuntimeOptions{Args: []string{"--network=host"}})
	if err != nil || host.OwnNetwork() {
		t.Errorf("with the node's network: %v", err)
	}
}

func TestParsePs(t *testing.T) {
	table := "UID       PID       PPID      PGID      C         TTY       STIME     TIME       CMD\n" +
		"0         1         0         1         0         ?         14:04     505262ns   tail -f\n" +
		"1000      12        1         12        0         pty/4     14:04     10ms       sh\n"
	list, err := parsePs(table)
	if err != nil || !slices.Equal(list, []insideProcess{{1, 0, 1}, {12, 1, 12}}) {
		t.Errorf("%v, %v", list, err)
	}
	for _, bad := range []string{"UID PID PPID\n0 1 0\n", "PID PPID PGID\n1 x 1\n", "PID PPID PGID\n1 0\n"} {
		if list, err := parsePs(bad); err == nil {
			t.Errorf("%q: %v", bad, list)
		}
	}
}

// TestSandboxUsage: what runsc prints, with what is zero left out.
func TestSandboxUsage(t *testing.T) {
	for text, want := range map[string]SandboxUsage{
		`{"type":"stats","id":"c","data":{"cpu":{"usage":{"total":1950729182}},"memory":{"usage":{"limit":0,"usage":2019328,"failcnt":0},` +
			`"swap":{"limit":0,"failcnt":0}},"pids":{"current":3},"network_interfaces":null}}` + "\n": {1950729182, 2019328, 3},
		`{"type":"stats","id":"c","data":{"cpu":{"usage":{}},"memory":{"usage":{"limit":0}},"pids":{}}}`: {},
	} {
		if got, err := parseUsage([]byte(text)); err != nil || got != want {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for _, bad := range []string{"", "{}", `{"type":"oom"}`, `{"type":"stats","data":{"cpu":{"usage":{"total":-1}}}}`} {
		if got, err := parseUsage([]byte(bad)); err == nil {
			t.Errorf("%q: %+v", bad, got)
		}
	}
}

// TestSandboxUsageHangs: it ends by the deadline, and a failure is told.
func TestSandboxUsageHangs(t *testing.T) {
	root := t.TempDir()
	path := script(t, `case "$*" in *--version*) echo "runsc version 1";; *"events --stats hangs") exec sleep 1000;; *) echo "not now" >&2; exit 1;; esac`)
	r, err := NewRuntime(t.Context(), "any", path, root, RuntimeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	touchFile(t, filepath.Join(root, "hangs_sandbox:s.state"))
	touchFile(t, filepath.Join(root, "fails_sandbox:s.state"))
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := r.SandboxUsage(ctx, "hangs"); errkind.Of(err) != errkind.Timeout {
		t.Errorf("one that hangs: %v", err)
	}
	if _, err := r.SandboxUsage(t.Context(), "fails"); !isCommandError(err) {
		t.Errorf("one that fails: %v", err)
	}
}

// TestSandboxUsageOfAGoneContainer: runsc makes a lock for a container that was
// deleted. It is not asked for one, and the lock of one that is deleted amid the
// question does not stay.
func TestSandboxUsageOfAGoneContainer(t *testing.T) {
	root := t.TempDir()
	path := script(t, `
case "$*" in
*--version*) echo "runsc version 1"; exit;;
*amid) rm "`+root+`/amid_sandbox:s.state"; >"`+root+`/amid_sandbox:s.lock";;
*gone) >"`+root+`/gone_sandbox:s.lock";;
esac
echo "no such container" >&2; exit 1`)
	r, err := NewRuntime(t.Context(), "any", path, root, RuntimeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"amid_sandbox:s.state", "there_sandbox:s.lock", "there_sandbox:s.state"} {
		touchFile(t, filepath.Join(root, name))
	}
	if _, err := r.SandboxUsage(t.Context(), "gone"); errkind.Of(err) != errkind.NotFound {
		t.Errorf("gone: %v", err)
	}
	for _, id := range []string{"amid", "there"} {
		if _, err := r.SandboxUsage(t.Context(), id); !isCommandError(err) {
			t.Errorf("%s: %v", id, err)
		}
	}
	left, err := filepath.Glob(filepath.Join(root, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range left {
		left[i] = filepath.Base(left[i])
	}
	if want := []string{"there_sandbox:s.lock", "there_sandbox:s.state"}; !slices.Equal(left, want) {
		t.Errorf("left: %q, want %q", left, want)
	}
}

func TestForgetSandbox(t *testing.T) {
	root := t.TempDir()
	path := script(t, `echo "runsc version 1"`)
	r, err := NewRuntime(t.Context(), "any", path, root, RuntimeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a_sandbox:one.lock", "b_sandbox:one.lock", "c_sandbox:two.lock", "c_sandbox:two.state"} {
		touchFile(t, filepath.Join(root, name))
	}
	if err := r.ForgetSandbox("one"); err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob(filepath.Join(root, "*"))
	if err != nil || len(left) != 2 {
		t.Errorf("left: %q, %v", left, err)
	}
}

func TestLastMessage(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	if got := lastMessage(log); got != "" {
		t.Errorf("without a log: %q", got)
	}
	text := `{"msg":"first","level":"error"}{"msg":"last","level":"error"}` + strings.Repeat("x", 3)
	if err := os.WriteFile(log, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := lastMessage(log); got != "last" {
		t.Errorf("%q", got)
	}
}
