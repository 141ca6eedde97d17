package cgroup

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-cri/gantry/internal/node"
)

func probe(t *testing.T) node.Facts {
	t.Helper()
	f, err := node.Probe()
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// scratch is a cgroup of the test's own, removed at its end.
func scratch(t *testing.T, f node.Facts) string {
	t.Helper()
	path := fmt.Sprintf("/gantry-test-cgroup-%d", os.Getpid())
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := errors.Join(KillAll(ctx, f, path), Remove(ctx, f, path)); err != nil {
			t.Error(err)
		}
		for _, dir := range Paths(f, path) {
			if exists(dir) {
				t.Errorf("%s is left", dir)
			}
		}
	})
	return path
}

// start runs a shell script and moves it into the cgroup before it continues.
func start(t *testing.T, f node.Facts, path, script string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("sh", "-c", "read go; "+script)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = cmd.Process.Kill(), cmd.Wait() })
	for _, file := range ProcsFiles(f, path) {
		if err := os.WriteFile(file, []byte(strconv.Itoa(cmd.Process.Pid)), 0); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := stdin.Write([]byte("go\n")); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
		t.Fatalf("the script did not say that it is ready: %v", err)
	}
	return cmd
}

func TestKillAllAndRemove(t *testing.T) {
	f := probe(t)
	path := scratch(t, f)
	if err := Create(f, path+"/a/b"); err != nil {
		t.Fatal(err)
	}
	if err := Create(f, path+"/a/b"); err != nil {
		t.Errorf("a second Create: %v", err)
	}
	if err := Create(f, path+"/other"); err != nil { // version 2 has processes in leaves only
		t.Fatal(err)
	}
	// A cgroup with children, one of which ignores SIGTERM and left its session.
	start(t, f, path+"/a/b", `trap "" TERM; setsid sleep 1000 & sleep 1000 & echo; wait`)
	start(t, f, path+"/other", `echo; sleep 1000`)
	pids, err := Procs(f, path)
	if err != nil || len(pids) < 4 {
		t.Fatalf("Procs = %v, %v; want at least 4", pids, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := KillAll(ctx, f, path+"/a"); err != nil {
		t.Fatal(err)
	}
	left, err := Procs(f, path)
	if err != nil || len(left) == 0 || len(left) >= len(pids) {
		t.Errorf("after killing a child, the parent lists %v, %v", left, err)
	}
	if err := KillAll(ctx, f, path); err != nil {
		t.Fatal(err)
	}
	if left, err = Procs(f, path); err != nil || len(left) != 0 {
		t.Errorf("Procs after KillAll = %v, %v", left, err)
	}
	if err := Remove(ctx, f, path); err != nil {
		t.Error(err)
	}
	if err := errors.Join(KillAll(ctx, f, path), Remove(ctx, f, path)); err != nil {
		t.Errorf("on a cgroup that does not exist: %v", err)
	}
}

func TestKillAllOutrunsForks(t *testing.T) {
	f := probe(t)
	path := scratch(t, f)
	if err := Create(f, path); err != nil {
		t.Fatal(err)
	}
	start(t, f, path, `echo; f() { while :; do sh -c : & sleep 0.01; done; }; for i in 1 2 3 4 5; do f & done; wait`)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := KillAll(ctx, f, path); err != nil {
		t.Fatal(err)
	}
}

func TestKillAllIsBounded(t *testing.T) {
	f := probe(t)
	if f.CgroupV2 {
		t.Skip("the version 1 freezer is what this uses to make a process unkillable")
	}
	path := scratch(t, f)
	if err := Create(f, path); err != nil {
		t.Fatal(err)
	}
	cmd := start(t, f, path, `echo; sleep 1000`)
	// A frozen process dies only because KillAll thaws it.
	freezer := filepath.Join(f.CgroupV1["freezer"], path, "freezer.state")
	if err := os.WriteFile(freezer, []byte("FROZEN"), 0); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := KillAll(ctx, f, path); err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(cmd.Process.Pid, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		t.Fatal(err)
	}
	expired, cancel := context.WithCancel(context.Background())
	cancel()
	start(t, f, path, `echo; exec sleep 1000`)
	if err := KillAll(expired, f, path); !errors.Is(err, context.Canceled) {
		t.Errorf("KillAll with a context that has ended = %v", err)
	}
}

func TestRefusals(t *testing.T) {
	f := node.Facts{CgroupRoot: t.TempDir(), CgroupV2: true, OwnCgroups: map[string]string{"": "/system/gantry"}}
	ctx := context.Background()
	for _, path := range []string{"", "/", "..", "../..", "/a/.."} {
		if Remove(ctx, f, path) == nil {
			t.Errorf("Remove(%q) is not refused", path)
		}
		if KillAll(ctx, f, path) == nil {
			t.Errorf("KillAll(%q) is not refused", path)
		}
	}
	for _, path := range []string{"/system", "system/gantry"} {
		if KillAll(ctx, f, path) == nil {
			t.Errorf("KillAll(%q) is not refused though the daemon runs there", path)
		}
	}
	if err := KillAll(ctx, f, "/sys"); err != nil {
		t.Error(err)
	}
}

func TestPaths(t *testing.T) {
	v1 := node.Facts{CgroupRoot: "/cg", CgroupUnified: "/cg/unified", CgroupV1: map[string]string{
		"cpu": "/cg/cpu,cpuacct", "cpuacct": "/cg/cpu,cpuacct", "memory": "/cg/memory",
	}}
	v2 := node.Facts{CgroupRoot: "/cg", CgroupV2: true}
	for _, c := range []struct {
		facts node.Facts
		path  string
		want  []string
	}{
		{v1, "/a/b", []string{"/cg/cpu,cpuacct/a/b", "/cg/memory/a/b", "/cg/unified/a/b"}},
		{v2, "/a/b", []string{"/cg/a/b"}},
		{v2, "a", []string{"/cg/a"}},
		{v2, "../../etc", []string{"/cg/etc"}},
		{v2, "/a/../../../b/./c/", []string{"/cg/b/c"}},
	} {
		if got := Paths(c.facts, c.path); fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("Paths(%q) = %q, want %q", c.path, got, c.want)
		}
	}
	if got := MemoryEventsFile(v1, "x"); got != "/cg/memory/x/memory.oom_control" {
		t.Error(got)
	}
	if got := MemoryEventsFile(v2, "x"); got != "/cg/x/memory.events" {
		t.Error(got)
	}
}

// TestCreateV2 runs Create on a directory that looks like a version 2
// hierarchy; the real one is covered where a node has it.
func TestCreateV2(t *testing.T) {
	root := t.TempDir()
	f := node.Facts{CgroupRoot: root, CgroupV2: true}
	for _, dir := range []string{"", "gantry", "gantry/pod"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
		for name, text := range map[string]string{"cgroup.controllers": "cpu memory\n", "cgroup.subtree_control": "cpu\n"} {
			if err := os.WriteFile(filepath.Join(root, dir, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := Create(f, "/gantry/pod"); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]string{"": "+memory", "gantry": "+memory", "gantry/pod": "cpu\n"} {
		got, err := os.ReadFile(filepath.Join(root, dir, "cgroup.subtree_control"))
		if err != nil || string(got) != want {
			t.Errorf("%s: subtree_control is %q, %v; want %q", dir, got, err, want)
		}
	}
}

func BenchmarkCreateRemove(b *testing.B) {
	f, err := node.Probe()
	if err != nil {
		b.Fatal(err)
	}
	path := fmt.Sprintf("/gantry-bench-cgroup-%d", os.Getpid())
	for b.Loop() {
		if err := Create(f, path+"/x"); err != nil {
			b.Fatal(err)
		}
		if err := Remove(b.Context(), f, path); err != nil {
			b.Fatal(err)
		}
	}
}
