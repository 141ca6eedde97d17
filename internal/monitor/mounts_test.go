package monitor

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// threadMounts returns the mounts in the calling thread's namespace.
func threadMounts(t *testing.T) []string {
	t.Helper()
	body, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(body)), "\n")
}

// TestSharedPropagation runs a pod in a tree that propagates every mount, as
// systemd sets it up: the root filesystem must not appear in it, and a
// container that asks for it must still be able to mount for the node.
func TestSharedPropagation(t *testing.T) {
	for _, name := range []string{"crun", "runc"} {
		t.Run(name, func(t *testing.T) {
			// Never unlocked: the thread, with its mount namespace, ends with the test.
			runtime.LockOSThread()
			for _, err := range []error{
				unix.Unshare(unix.CLONE_NEWNS),
				unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
				unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""),
			} {
				if err != nil {
					t.Fatal(err)
				}
			}
			testSharedPropagation(t, newPod(t, name))
		})
	}
}

func testSharedPropagation(t *testing.T, p *pod) {
	b := p.bundle("/bin/busybox", "mount", "-t", "tmpfs", "montest-from-inside", "/vol/sub")
	volume := filepath.Join(b.dir, "volume")
	if err := os.MkdirAll(filepath.Join(volume, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	b.spec["mounts"] = append(b.spec["mounts"].([]any),
		map[string]any{"destination": "/vol", "type": "bind", "source": volume, "options": []string{"rbind", "rshared"}})
	b.spec["linux"].(map[string]any)["rootfsPropagation"] = "rshared"
	caps := []string{"CAP_SYS_ADMIN"}
	b.process()["capabilities"] = map[string]any{"bounding": caps, "effective": caps, "permitted": caps}
	before := threadMounts(t)
	p.create(b)
	// Only what came counts: a mount that was copied from the node goes when
	// somebody there removes its directory.
	for _, mount := range threadMounts(t) {
		if !slices.Contains(before, mount) {
			t.Errorf("the node sees a mount of the container: %s", mount)
		}
	}
	p.start(b)
	if e := p.wait(b); e.Code != 0 {
		t.Errorf("exit %+v: %v", e, readLog(t, b.req.LogPath))
	}
	sub := filepath.Join(volume, "sub")
	if after := threadMounts(t); !slices.ContainsFunc(after, func(mount string) bool { return strings.Contains(mount, " "+sub+" ") }) {
		t.Errorf("a mount on a volume with bidirectional propagation does not reach the node: %q", after)
	}
	if err := unix.Unmount(sub, unix.MNT_DETACH); err != nil {
		t.Error(err)
	}
}

func TestReadOnlyOverlays(t *testing.T) {
	eachRuntime(t, func(t *testing.T, p *pod) {
		empty := t.TempDir()
		for _, lower := range [][]string{{shared.layer}, {empty, shared.layer}} {
			b := p.bundle("/bin/sh", "-c", "echo x > /file && exit 1; exit 0")
			b.req.Mounts[0].Overlay.Upper, b.req.Mounts[0].Overlay.Work = "", ""
			b.req.Mounts[0].Overlay.Lower = lower
			p.create(b)
			p.start(b)
			if e := p.wait(b); e.Code != 0 {
				t.Errorf("%d layers: exit %+v: %v", len(lower), e, readLog(t, b.req.LogPath))
			}
		}
	})
}

// Hundreds of layers in long paths: more than mount options have room for.
func TestManyLayers(t *testing.T) {
	p := newPod(t, "crun")
	b := p.bundle("/bin/sh", "-c", "cat=/bin/busybox; $cat cat /n; $cat ls /layers | $cat wc -l")
	base := filepath.Join(t.TempDir(), strings.Repeat("long", 20))
	var lower []string
	const count = 300
	for i := range count {
		dir := filepath.Join(base, fmt.Sprintf("%d,%%:\\x", i), "diff")
		if err := os.MkdirAll(filepath.Join(dir, "layers"), 0o755); err != nil {
			t.Fatal(err)
		}
		for name, words := range map[string]string{"n": fmt.Sprintln(i), "layers/" + itoa(i): ""} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(words), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		lower = append(lower, dir)
	}
	b.req.Mounts[0].Overlay.Lower = append(lower, shared.layer)
	b.req.Mounts[0].Overlay.Options = []string{"volatile"}
	p.create(b)
	p.start(b)
	p.wait(b)
	if got := output(readLog(t, b.req.LogPath), "stdout"); got != fmt.Sprintf("0\n%d\n", count) {
		t.Errorf("log %q", got)
	}
}

// Containers of a pod share the /dev/shm that the pause container mounted.
func TestSharedMemoryOfThePause(t *testing.T) {
	eachRuntime(t, func(t *testing.T, p *pod) {
		pause := p.bundle("/pause")
		pause.spec["mounts"] = append(pause.spec["mounts"].([]any),
			map[string]any{"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": []string{"nosuid", "mode=1777", "size=65536k"}})
		pid := p.create(pause)
		p.start(pause)
		for _, script := range []string{"echo hello > /dev/shm/file", "exec /bin/busybox cat /dev/shm/file"} {
			b := p.bundle("/bin/sh", "-c", script)
			target := filepath.Join(p.dir, "shm")
			b.req.Mounts = append(b.req.Mounts, Mount{Shared: &FromProcess{PID: pid, Source: "/dev/shm", Target: target}})
			b.spec["mounts"] = append(b.spec["mounts"].([]any),
				map[string]any{"destination": "/dev/shm", "type": "bind", "source": target, "options": []string{"rbind"}})
			p.create(b)
			p.start(b)
			if e := p.wait(b); e.Code != 0 {
				t.Errorf("%s: %+v: %v", script, e, readLog(t, b.req.LogPath))
			}
			if strings.Contains(script, "cat") {
				if got := output(readLog(t, b.req.LogPath), "stdout"); got != "hello\n" {
					t.Errorf("log %q", got)
				}
			}
		}
		if err := p.client.Kill(t.Context(), pause.req.ID, unix.SIGTERM); err != nil {
			t.Error(err)
		}
		if e := p.wait(pause); e.Code != 0 {
			t.Errorf("pause: %+v", e)
		}
	})
}

// A log disk that is full ends nothing, and recovers.
func TestFullLogDisk(t *testing.T) {
	p := newPod(t, "crun")
	disk := filepath.Join(t.TempDir(), "disk")
	if err := os.Mkdir(disk, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("montest", disk, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(disk, unix.MNT_DETACH)
	filler := filepath.Join(disk, "filler")
	if err := os.WriteFile(filler, make([]byte, 300<<10), 0o644); err != nil {
		t.Fatal(err)
	}
	b := p.bundle("/bin/sh", "-c", "echo first; /bin/busybox seq 200000; echo; read word; echo $word; exit 9")
	b.req.Stdin = true
	b.req.LogPath, b.req.ExitFile = filepath.Join(disk, "log"), filepath.Join(disk, "exit.json")
	p.create(b)
	s := p.attach(b, AttachOptions{Stdin: true})
	p.start(b)
	var lost uint64
	waitFor(t, "lost output", func() bool {
		infos, err := p.client.Containers(t.Context())
		if err != nil || len(infos) != 1 {
			t.Fatal(infos, err)
		}
		before := lost
		lost = infos[0].LogLost
		return lost > 0 && lost == before
	})
	if err := os.WriteFile(filepath.Join(disk, "more"), make([]byte, 1<<20), 0o644); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	p.wantLog(b, unix.ENOSPC)
	late := &pod{t: t, dir: p.dir, exits: make(chan containerExit, 1), logs: make(chan containerLog, 1)}
	client, err := Connect(t.Context(), p.dir, late.handler())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	late.wantLog(b, unix.ENOSPC) // a daemon that comes later hears of it, too
	if err := errors.Join(os.Remove(filler), os.Remove(filepath.Join(disk, "more"))); err != nil {
		t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond) // so long a failing disk may be left alone
	if _, err := s.Write([]byte("recovered\n")); err != nil {
		t.Fatal(err)
	}
	e := p.wait(b)
	p.wantLog(b, nil)
	if read, ended, err := ReadExit(b.req.ExitFile); e.Code != 9 || !ended || read.Code != 9 || read.LogLost != e.LogLost || err != nil {
		t.Errorf("exit %+v, recorded %+v, %v", e, read, err)
	}
	records := readLog(t, b.req.LogPath)
	got := output(records, "stdout")
	if !strings.HasPrefix(got, "first\n1\n2\n") || !strings.HasSuffix(got, "\nrecovered\n") {
		t.Errorf("log %.20q ... %.20q", got, got[max(0, len(got)-20):])
	}
	full := len("first\n\nrecovered\n")
	for i := 1; i <= 200000; i++ {
		full += len(itoa(i)) + 1
	}
	// A line that was torn is closed with a newline that the container did not write.
	if torn := uint64(len(got)) + e.LogLost - uint64(full); torn > 1 {
		t.Errorf("%d bytes logged, %d lost, %d written", len(got), e.LogLost, full)
	}
}

// wantLog waits for the event that the container's log fails, or works again.
func (p *pod) wantLog(b *bundle, want error) {
	p.t.Helper()
	select {
	case l := <-p.logs:
		if l.container != b.req.ID || l.state.Err != want || l.state.Lost == 0 {
			p.t.Errorf("log of %s: %+v, want %v of %s", l.container, l.state, want, b.req.ID)
		}
	case <-time.After(time.Minute):
		p.t.Fatalf("no word about the log: want %v", want)
	}
}

// TestOverlayC runs the C test of the mount code that this kernel does not need.
func TestOverlayC(t *testing.T) {
	out, err := exec.Command("make", "-s", "-C", "../../monitor", "check-overlay", "BUILD="+shared.dir).CombinedOutput()
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
