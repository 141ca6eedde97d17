package oci

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gantry-cri/gantry/internal/cgroup"
	"github.com/gantry-cri/gantry/internal/errkind"
)

// TestExecSync runs one container of each runtime through everything that an
// exec can do, with the helper and without.
func TestExecSync(t *testing.T) {
	helper := buildC(t, "../../execwait/execwait.c")
	for _, name := range runtimes {
		t.Run(name+"/direct", func(t *testing.T) { testExecSync(t, name, "") })
		t.Run(name+"/helper", func(t *testing.T) { testExecSync(t, name, helper) })
	}
}

// buildC builds a static program out of one C file.
func buildC(t testing.TB, source string) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "program")
	out, err := exec.Command("cc", "-std=gnu11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-Os", "-static", "-o", program, source).CombinedOutput()
	if err != nil {
		t.Fatalf("cc %s: %v: %s", source, err, out)
	}
	return program
}

func testExecSync(t *testing.T, name, helper string) {
	c := startContainer(t, openRuntime(t, name), "sleep", "1000")
	c.helper = helper
	t.Run("ends", func(t *testing.T) { testExecEnds(t, c) })
	t.Run("context", func(t *testing.T) { testExecContext(t, c) })
	t.Run("output", func(t *testing.T) { testExecOutput(t, c) })
	if helper != "" || name != "runc" { // see ExecSyncOptions.Helper
		t.Run("background", func(t *testing.T) { testExecBackground(t, c) })
	}
	t.Run("timeout", func(t *testing.T) { testExecTimeout(t, c) })
	t.Run("parallel", func(t *testing.T) { testExecParallel(t, c) })
	if left, err := filepath.Glob(filepath.Join(c.dir, "exec-*")); err != nil || len(left) != 0 {
		t.Errorf("files are left: %v %v", left, err)
	}
	c.stop()
	if _, err := c.exec(0, "true"); err == nil {
		t.Error("exec in a stopped container is no error")
	}
}

func testExecEnds(t *testing.T, c *running) {
	for _, x := range []struct {
		args           []string
		code           int
		stdout, stderr string
	}{
		{[]string{"true"}, 0, "", ""},
		{[]string{"sh", "-c", "echo out; echo err >&2; exit 7"}, 7, "out\n", "err\n"},
		{[]string{"sh", "-c", "kill -9 $$"}, 137, "", ""},
		{[]string{"sh", "-c", "kill -TERM $$"}, 143, "", ""},
		{[]string{"sh", "-c", "exit 255"}, 255, "", ""},
		{[]string{"cat"}, 0, "", ""}, // standard input is empty
		{[]string{"echo", "--", "-x", ""}, 0, "-- -x \n", ""},
	} {
		got, err := c.exec(10*time.Second, x.args...)
		if err != nil || got.ExitCode != x.code || string(got.Stdout) != x.stdout || string(got.Stderr) != x.stderr || got.Truncated {
			t.Errorf("%q: code %d, stdout %q, stderr %q, %v", x.args, got.ExitCode, got.Stdout, got.Stderr, err)
		}
	}
	for _, missing := range []string{"no-such-program", "/etc"} {
		if got, err := c.exec(10*time.Second, missing); !isCommandError(err) {
			t.Errorf("%q: %+v, %v", missing, got, err)
		}
	}
	if _, err := c.exec(0); errkind.Of(err) != errkind.Invalid {
		t.Errorf("no command: %v", err)
	}
}

// testExecContext checks that the process has what the container's own has. The
// soft limit is left out: the Go runtime in runc 1.1.5 raises it to the hard one.
func testExecContext(t *testing.T, c *running) {
	got, err := c.exec(10*time.Second, "sh", "-c", `id -u; id -g; id -G; pwd; echo $COLOUR; ulimit -Hn
		grep -E '^(Cap(Prm|Eff|Bnd|Amb)|NoNewPrivs|Seccomp):' /proc/self/status`)
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf(`%d
%d
%d %d
/tmp
green
88
CapPrm:	0000000000000000
CapEff:	0000000000000000
CapBnd:	0000000000000020
CapAmb:	0000000000000000
NoNewPrivs:	1
Seccomp:	2
`, testUser, testGroup, testGroup, extraGroup)
	if string(got.Stdout) != want {
		t.Errorf("got\n%swant\n%s", got.Stdout, want)
	}
	if c.helper == "" { // see ExecSyncOptions.Helper
		return
	}
	got, err = c.exec(10*time.Second, "cat", "/proc/self/oom_score_adj")
	if err != nil || string(got.Stdout) != "321\n" {
		t.Errorf("oom_score_adj is %q, %v", got.Stdout, err)
	}
}

func testExecOutput(t *testing.T, c *running) {
	o := c.options(20*time.Second, "sh", "-c", "head -c 50000000 /dev/zero; head -c 999 /dev/zero >&2")
	o.MaxOutput = 1000
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	got, err := c.r.ExecSync(t.Context(), c.id, o)
	runtime.ReadMemStats(&after)
	if err != nil || got.ExitCode != 0 || !got.Truncated {
		t.Fatalf("code %d, truncated %v, %v", got.ExitCode, got.Truncated, err)
	}
	if len(got.Stdout) != 1000 || !strings.HasSuffix(string(got.Stdout), "\n[gantry: output cut, only the first 1000 bytes are kept]\n") {
		t.Errorf("stdout: %d bytes, ending in %q", len(got.Stdout), got.Stdout[max(0, len(got.Stdout)-80):])
	}
	if len(got.Stderr) != 999 {
		t.Errorf("stderr: %d bytes", len(got.Stderr))
	}
	if used := after.TotalAlloc - before.TotalAlloc; used > 4<<20 {
		t.Errorf("%d bytes were allocated", used)
	}
	got, err = c.exec(20*time.Second, "head", "-c", "3000000", "/dev/zero")
	if err != nil || len(got.Stdout) != 3000000 || got.Truncated {
		t.Errorf("%d bytes, truncated %v, %v", len(got.Stdout), got.Truncated, err)
	}
}

// testExecBackground leaves a process behind that holds the output open.
func testExecBackground(t *testing.T, c *running) {
	begin := time.Now()
	got, err := c.exec(20*time.Second, "sh", "-c", "sleep 777 & echo started; exit 3")
	if err != nil || got.ExitCode != 3 || string(got.Stdout) != "started\n" {
		t.Errorf("code %d, stdout %q, %v", got.ExitCode, got.Stdout, err)
	}
	if took := time.Since(begin); took > 20*time.Second {
		t.Errorf("it took %s", took)
	}
	if pids := find(t, c, "777"); len(pids) != 1 {
		t.Errorf("the background process is gone, or not alone: %v", pids)
	}
}

// find lists the container's processes that have arg as an argument.
func find(t *testing.T, c *running, arg string) []int {
	t.Helper()
	pids, err := cgroup.Procs(c.node, c.cgroup)
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(pids, func(pid int) bool {
		cmdline, _ := os.ReadFile(procPath(pid, "cmdline"))
		return !slices.Contains(strings.Split(string(cmdline), "\x00"), arg)
	})
}

// testExecTimeout lets processes escape in every way that a timeout must not miss.
func testExecTimeout(t *testing.T, c *running) {
	var all []time.Duration
	for name, script := range map[string]string{
		"plain":            "sleep 888",
		"children":         "sleep 888 & sleep 888 & (sleep 888; sleep 888) & wait",
		"ignores signals":  `trap "" TERM INT HUP; sleep 888 & while :; do sleep 888; done`,
		"own session":      "setsid sleep 888 & setsid setsid sleep 888 & sleep 888",
		"daemon":           "(setsid sh -c 'sleep 888 & sleep 888 & exit' >/dev/null 2>&1 </dev/null &); sleep 888",
		"cleared":          "(setsid env -i sh -c 'cd /; exec >/dev/null 2>&1 </dev/null; (sleep 888 &) ; (sleep 888 &)' &); sleep 888",
		"stopped":          "sleep 888 & kill -STOP $!; kill -STOP $$",
		"forks on and on":  "f() { while :; do (setsid sleep 888 >/dev/null 2>&1 &); sleep 0.02; done; }; f & f & f",
		"writes on and on": "yes 888",
	} {
		before := find(t, c, "777")
		begin := time.Now()
		_, err := c.exec(500*time.Millisecond, "sh", "-c", script)
		took := time.Since(begin)
		if errkind.Of(err) != errkind.Timeout {
			t.Errorf("%s: kind %v, %v", name, errkind.Of(err), err)
		}
		if took < 500*time.Millisecond || took > 10*time.Second {
			t.Errorf("%s: took %s", name, took)
		}
		all = append(all, took)
		if left := find(t, c, "888"); len(left) != 0 {
			t.Errorf("%s: processes are left: %v", name, left)
		}
		if after := find(t, c, "777"); !slices.Equal(before, after) {
			t.Errorf("%s: another exec's processes were %v and are %v", name, before, after)
		}
		if state, err := c.r.State(t.Context(), c.id); err != nil || state.Status != StatusRunning {
			t.Fatalf("%s: the container is %+v, %v", name, state, err)
		}
	}
	slices.Sort(all)
	if median := all[len(all)/2]; median > 1500*time.Millisecond { // one may meet a busy machine
		t.Errorf("half of them took more than a second beyond their time: %s", all)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(300*time.Millisecond, cancel)
	_, err := c.r.ExecSync(ctx, c.id, c.options(0, "sleep", "888"))
	if err == nil || errkind.Of(err) == errkind.Timeout || len(find(t, c, "888")) != 0 {
		t.Errorf("cancelled: %v, left %v", err, find(t, c, "888"))
	}
}

// testExecParallel has execs time out beside others that must not notice.
func testExecParallel(t *testing.T, c *running) {
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			if i%2 == 0 {
				if _, err := c.exec(300*time.Millisecond, "sh", "-c", "(setsid sleep 888 >/dev/null 2>&1 &); sleep 888"); errkind.Of(err) != errkind.Timeout {
					t.Errorf("%d: %v", i, err)
				}
				return
			}
			got, err := c.exec(20*time.Second, "sh", "-c", "sleep 1.5; echo done")
			if err != nil || string(got.Stdout) != "done\n" {
				t.Errorf("%d: %q, %v", i, got.Stdout, err)
			}
		})
	}
	wg.Wait()
	if left := find(t, c, "888"); len(left) != 0 {
		t.Errorf("processes are left: %v", left)
	}
}

func TestParseStat(t *testing.T) {
	fields := " S 7 8 9 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4321 0 0\n"
	for _, name := range []string{"sh", "a b", "x) R 1 1 1", ")", "(("} {
		got, ok := parseStat(5, "5 ("+name+")"+fields)
		if want := (proc{procKey{5, 4321}, 7, 9, 'S'}); !ok || got != want {
			t.Errorf("%q: %+v, %v", name, got, ok)
		}
	}
	for _, text := range []string{"", "5 (sh", "5 (sh) S 7", strings.Replace("5 (sh)"+fields, "4321", "x", 1)} {
		if _, ok := parseStat(5, text); ok {
			t.Errorf("%q is accepted", text)
		}
	}
}

func TestReadProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.json")
	for text, want := range map[string]string{
		`{"ociVersion":"1.0.0","hooks":{"process":{"cwd":"/no"}},"process":{"cwd":"/yes"},"linux":broken`: "/yes",
		`{"process":{"cwd":"/first"}}`: "/first",
		`{"root":{}}`:                  "",
		`{"process":3}`:                "",
		`[]`:                           "",
		``:                             "",
		`{"root":`:                     "",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		p, err := readProcess(path)
		if (err == nil) != (want != "") || err == nil && p.Cwd != want {
			t.Errorf("%s: %+v, %v", text, p, err)
		}
	}
}

func BenchmarkExec(b *testing.B) {
	for _, name := range runtimes {
		c := startContainer(b, openRuntime(b, name), "sleep", "1000")
		helper := buildC(b, "../../execwait/execwait.c")
		b.Run(name+"/helper", func(b *testing.B) {
			c.helper = helper
			for b.Loop() {
				if got, err := c.exec(10*time.Second, "true"); err != nil || got.ExitCode != 0 {
					b.Fatal(got.ExitCode, err)
				}
			}
		})
		b.Run(name+"/direct", func(b *testing.B) {
			c.helper = ""
			for b.Loop() {
				if got, err := c.exec(10*time.Second, "true"); err != nil || got.ExitCode != 0 {
					b.Fatal(got.ExitCode, err)
				}
			}
		})
		b.Run(name+"/bare", func(b *testing.B) {
			for b.Loop() {
				if err := exec.Command(c.r.Path(), "--root", c.r.root, "exec", c.id, "true").Run(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
