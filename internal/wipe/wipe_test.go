package wipe

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func write(t *testing.T, files ...string) {
	t.Helper()
	for _, file := range files {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func link(t *testing.T, target, name string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, name); err != nil {
		t.Fatal(err)
	}
}

func wantGone(t *testing.T, paths ...string) {
	t.Helper()
	for _, path := range paths {
		if exists(path) {
			t.Errorf("%s is there", path)
		}
	}
}

func wantThere(t *testing.T, paths ...string) {
	t.Helper()
	for _, path := range paths {
		if !exists(path) {
			t.Errorf("%s is gone", path)
		}
	}
}

func TestRemoveTree(t *testing.T) {
	dir := t.TempDir()
	victim, tree := filepath.Join(dir, "victim"), filepath.Join(dir, "tree")
	write(t, victim+"/file", tree+"/a/b/c", tree+"/a/d")
	link(t, victim, tree+"/a/link")
	link(t, victim+"/file", tree+"/link")
	link(t, "../../victim", tree+"/a/b/relative")
	for i := range 5000 { // more than are read at once
		write(t, fmt.Sprintf("%s/many/%d", tree, i))
	}
	if err := removeTree(tree); err != nil {
		t.Fatal(err)
	}
	wantGone(t, tree)
	wantThere(t, victim+"/file")
	if err := removeTree(tree); err != nil {
		t.Errorf("again: %v", err)
	}
	link(t, victim, tree)
	if err := removeTree(tree); err != nil {
		t.Fatal(err)
	}
	wantGone(t, tree)
	wantThere(t, victim+"/file")
}

// TestRemoveDeepTree: deeper than a path can be long, and than there are descriptors.
func TestRemoveDeepTree(t *testing.T) {
	tree := filepath.Join(t.TempDir(), "tree")
	if err := os.Mkdir(tree, 0o755); err != nil {
		t.Fatal(err)
	}
	at, err := unix.Open(tree, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	for range 3000 {
		if err := unix.Mkdirat(at, "directory", 0o755); err != nil {
			t.Fatal(err)
		}
		next, err := unix.Openat(at, "directory", unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(at)
		at = next
	}
	unix.Close(at)
	if err := removeTree(tree); err != nil {
		t.Fatal(err)
	}
	wantGone(t, tree)
}

// TestRemoveTreeMounts: what is mounted below stays, be it of the same file
// system; the top may be a mount.
func TestRemoveTreeMounts(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("this test needs root: it mounts")
	}
	dir := t.TempDir()
	victim, tree := filepath.Join(dir, "victim"), filepath.Join(dir, "tree")
	write(t, victim+"/file", tree+"/a/file", tree+"/a/mounted/x", tree+"/b")
	if err := unix.Mount(victim, tree+"/a/mounted", "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(tree+"/a/mounted", unix.MNT_DETACH) //nolint:errcheck // in case the test fails
	err := removeTree(tree)
	if err == nil || !strings.Contains(err.Error(), tree+"/a/mounted stays: something is mounted there") {
		t.Errorf("error: %v", err)
	}
	wantThere(t, victim+"/file")
	wantGone(t, tree+"/a/file", tree+"/b")
	if err := unix.Unmount(tree+"/a/mounted", 0); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", tree, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(tree, unix.MNT_DETACH) //nolint:errcheck // in case the test fails
	write(t, tree+"/a/b")
	if err := removeTree(tree); err != nil {
		t.Error(err)
	}
	wantThere(t, tree)
	wantGone(t, tree+"/a")
}

// node makes what a daemon leaves, and things of others.
func node(t *testing.T) Scope {
	t.Helper()
	dir := t.TempDir()
	s := Scope{Root: dir + "/root", RunRoot: dir + "/run", Listen: dir + "/cri.sock", RuntimeRoots: []string{dir + "/run/crun", dir + "/elsewhere"}}
	write(t,
		s.RunRoot+"/gantryd.lock", s.RunRoot+"/boot_id", s.RunRoot+"/pods/p/pod.json", s.RunRoot+"/naming/1", s.RunRoot+"/crun/.empty",
		s.Root+"/gantryd.lock", s.Root+"/containers/c/upper/file", s.Root+"/network/attachments/p.json", s.Root+"/bin/gantry-monitor-1",
		s.Root+"/storage/overlay/l/file", s.Root+"/usage.json", s.Root+"/.package/gantryd", dir+"/elsewhere/file")
	l, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(l)
	if err := unix.Bind(l, &unix.SockaddrUnix{Name: s.Listen}); err != nil {
		t.Fatalf("bind a socket (has the directory of the test a long name?): %v", err)
	}
	return s
}

var allDone = Outcome{Pods: true, Networks: true, Images: true}

func TestScopeKeepsImages(t *testing.T) {
	s := node(t)
	if err := s.Check(); err != nil {
		t.Fatal(err)
	}
	if _, errs := s.Remove(allDone); len(errs) > 0 {
		t.Fatal(errs)
	}
	wantGone(t, s.RunRoot, s.Listen, s.Root+"/containers", s.Root+"/network", s.Root+"/bin")
	wantThere(t, s.Root+"/storage/overlay/l/file", s.Root+"/usage.json", s.Root+"/.package/gantryd", s.RuntimeRoots[1]+"/file")
	if places := s.Places(); len(places) > 0 {
		t.Errorf("there is still %v", places)
	}
	if err := s.Check(); err != nil {
		t.Errorf("checked again: %v", err)
	}
	s.Images = true
	notes, errs := s.Remove(allDone)
	if len(errs) > 0 || len(notes) != 1 || !strings.Contains(notes[0], "stays: it has .package, which is not Gantry's") {
		t.Errorf("%v, %v", notes, errs)
	}
	wantGone(t, s.Root+"/storage", s.Root+"/usage.json", s.Root+"/gantryd.lock")
	if places := s.Places(); len(places) > 0 {
		t.Errorf("there is still %v", places)
	}
}

// TestScopeKeepsWhatIsNeeded: a next run finds what this one could not end.
func TestScopeKeepsWhatIsNeeded(t *testing.T) {
	s := node(t)
	s.Images = true
	before := s.Places()
	if _, errs := s.Remove(Outcome{}); len(errs) > 0 {
		t.Fatal(errs)
	}
	if after := s.Places(); !slices.Equal(before, after) {
		t.Errorf("with pods left there is %v, before %v", after, before)
	}
	s.Images = false
	if _, errs := s.Remove(Outcome{Pods: true}); len(errs) > 0 {
		t.Fatal(errs)
	}
	wantGone(t, s.RunRoot+"/pods", s.Root+"/containers")
	wantThere(t, s.Root+"/network/attachments/p.json", s.RunRoot+"/naming/1", s.RunRoot+"/gantryd.lock")
	if err := s.Check(); err != nil {
		t.Errorf("checked again: %v", err)
	}
	if _, errs := s.Remove(allDone); len(errs) > 0 {
		t.Fatal(errs)
	}
	wantGone(t, s.RunRoot, s.Root+"/network")
}

// TestScopeOfOthers: where no gantryd has worked nothing is touched.
func TestScopeOfOthers(t *testing.T) {
	s := node(t)
	if err := os.Remove(s.Root + "/gantryd.lock"); err != nil {
		t.Fatal(err)
	}
	if err := s.Check(); err == nil || !strings.Contains(err.Error(), "no gantryd has ever worked in "+s.Root) {
		t.Errorf("check: %v", err)
	}
	for _, place := range s.Places() {
		if below(place, s.Root) {
			t.Errorf("%s is to be removed", place)
		}
	}
	empty := Scope{Root: t.TempDir(), RunRoot: filepath.Join(t.TempDir(), "none"), Images: true}
	if err := empty.Check(); err != nil || len(empty.Places()) > 0 {
		t.Errorf("nothing there: %v, %v", err, empty.Places())
	}
}

func TestScopeLinks(t *testing.T) {
	s := node(t)
	victim := t.TempDir()
	write(t, victim+"/file")
	if err := os.Rename(s.Root+"/containers", s.Root+"/containers.was"); err != nil {
		t.Fatal(err)
	}
	link(t, victim, s.Root+"/containers")
	notes, errs := s.Remove(allDone)
	if len(errs) > 0 || len(notes) != 1 || !strings.Contains(notes[0], victim) {
		t.Errorf("%v, %v", notes, errs)
	}
	wantThere(t, victim+"/file", s.Root+"/containers.was")
	wantGone(t, s.Root+"/containers")
}

// TestEndChildren: what was started and given up is ended, with its group.
func TestEndChildren(t *testing.T) {
	cmd := exec.Command("sh", "-c", "sleep 1000 & sleep 1000")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	EndChildren()
	select {
	case <-ended:
	case <-time.After(5 * time.Second):
		t.Error("it runs on")
		_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
	}
}

func TestParseMounts(t *testing.T) {
	got := parseMounts("36 35 98:0 / /a\\040b rw,noatime master:1 - ext4 /dev/root rw\nnonsense\n37 36 0:4 net:[1] /run/netns rw - nsfs nsfs rw\n")
	want := []mount{{"/a b", "ext4"}, {"/run/netns", "nsfs"}}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestBelow(t *testing.T) {
	for _, c := range []struct {
		path, dir string
		want      bool
	}{{"/a/b", "/a", true}, {"/a", "/a", false}, {"/ab", "/a", false}, {"/", "/a", false}, {"/a/..b", "/a", true}} {
		if got := below(c.path, c.dir); got != c.want {
			t.Errorf("below(%q, %q) = %v", c.path, c.dir, got)
		}
	}
}

// TestEndMonitors: a program of a monitor's name and place, and its children, are
// ended; others are not.
func TestEndMonitors(t *testing.T) {
	bin := t.TempDir()
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Fatal(err)
	}
	body, err := os.ReadFile(sh)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"gantry-monitor-1", "another"} {
		if err := os.WriteFile(filepath.Join(bin, name), body, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	start := func(name string) *exec.Cmd {
		cmd := exec.Command(filepath.Join(bin, name), "-c", "sleep 1000 & echo; wait; sleep 1000")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }) // its children, too
		return cmd
	}
	monitor, other := start("gantry-monitor-1"), start("another")
	if pids, err := Monitors(bin); err != nil || !slices.Equal(pids, []int{monitor.Process.Pid}) {
		t.Fatalf("%v, %v", pids, err)
	}
	reaped := make(chan error, 1)
	go func() { reaped <- monitor.Wait() }()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := EndMonitors(ctx, bin); err != nil {
		t.Fatal(err)
	}
	<-reaped
	if err := unix.Kill(-monitor.Process.Pid, 0); !errors.Is(err, unix.ESRCH) {
		t.Errorf("a child of the monitor lives: %v", err)
	}
	if err := unix.Kill(other.Process.Pid, 0); err != nil {
		t.Errorf("another process has ended: %v", err)
	}
	_ = other.Process.Kill() // reaped below
	_ = other.Wait()
}
