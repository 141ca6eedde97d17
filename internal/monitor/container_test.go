package monitor

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-cri/gantry/internal/errkind"
	"github.com/gantry-cri/gantry/internal/id"
)

func TestRunsContainerAndRecordsItsExit(t *testing.T) {
	eachRuntime(t, func(t *testing.T, p *pod) {
		b := p.bundle("/bin/sh", "-c", "echo out; echo err >&2; echo -n rest; echo new > /file; exit 7")
		pid := p.create(b)
		if got := pidOf(t, b.req.PidFile); got != pid {
			t.Errorf("PID %d, pid file says %d", pid, got)
		}
		if _, ended, err := ReadExit(b.req.ExitFile); ended || err != nil {
			t.Errorf("before the start: ended %v, %v", ended, err)
		}
		p.start(b)
		e := p.wait(b)
		if e.Code != 7 || e.Signal != 0 || e.OOMKilled || time.Since(e.FinishedAt) > time.Minute {
			t.Errorf("exit %+v", e)
		}
		read, ended, err := ReadExit(b.req.ExitFile)
		if err != nil || !ended || !read.FinishedAt.Equal(e.FinishedAt) || read.Code != 7 {
			t.Errorf("record %+v, %v, %v", read, ended, err)
		}
		records := readLog(t, b.req.LogPath)
		if got := output(records, "stdout"); got != "out\nrest" {
			t.Errorf("stdout %q", got)
		}
		if got := output(records, "stderr"); got != "err\n" {
			t.Errorf("stderr %q", got)
		}
		if _, err := os.Stat(filepath.Join(b.dir, "upper", "file")); err != nil {
			t.Errorf("the container's file is not in its upper directory: %v", err)
		}
	})
}

func TestExitBySignal(t *testing.T) {
	eachRuntime(t, func(t *testing.T, p *pod) {
		b := p.bundle("/bin/sh", "-c", "exec /bin/busybox sleep 1000")
		p.create(b)
		p.start(b)
		if err := p.client.Kill(t.Context(), b.req.ID, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if e := p.wait(b); e.Code != 137 || e.Signal != 9 {
			t.Errorf("exit %+v", e)
		}
		if err := p.client.Kill(t.Context(), b.req.ID, unix.SIGTERM); !errors.Is(err, ErrExited) {
			t.Errorf("kill after the exit: %v", err)
		}
		infos, err := p.client.Containers(t.Context())
		if err != nil || len(infos) != 1 || infos[0].State != Exited || infos[0].Exit.Code != 137 {
			t.Errorf("containers %+v, %v", infos, err)
		}
		for range 2 {
			if err := p.client.Forget(t.Context(), b.req.ID); err != nil {
				t.Error(err)
			}
		}
		if err := p.client.Kill(t.Context(), b.req.ID, unix.SIGTERM); errkind.Of(err) != errkind.NotFound {
			t.Errorf("kill after forget: %v", err)
		}
	})
}

func TestCreateFailure(t *testing.T) {
	eachRuntime(t, func(t *testing.T, p *pod) {
		b := p.bundle("/bin/sh")
		b.spec["mounts"] = append(b.spec["mounts"].([]any),
			map[string]any{"destination": "/x", "type": "bind", "source": "/no/such/source", "options": []string{"bind"}})
		b.write(t)
		_, err := p.client.Create(t.Context(), b.req)
		var failure *CreateError
		if !errors.As(err, &failure) || failure.ExitStatus == 0 || !strings.Contains(failure.Output, "/no/such/source") {
			t.Fatalf("got %v", err)
		}
		p.started = append(p.started, string(b.req.ID))
		infos, err := p.client.Containers(t.Context())
		if err != nil || len(infos) != 0 {
			t.Errorf("left with the monitor: %+v, %v", infos, err)
		}
		if _, err := os.Stat(b.req.ExitFile); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("exit record: %v", err)
		}
	})
}

func TestCreateFailuresBeforeTheRuntime(t *testing.T) {
	p := newPod(t, "crun")
	for name, change := range map[string]func(*CreateRequest){
		"/no/such/program": func(r *CreateRequest) { r.Args[0] = "/no/such/program" },
		"/no/such/layer":   func(r *CreateRequest) { r.Mounts[0].Overlay.Lower[0] = "/no/such/layer" },
		"/no/such/log":     func(r *CreateRequest) { r.LogPath = "/no/such/log" },
		"/no/such/exit":    func(r *CreateRequest) { r.ExitFile = "/no/such/exit" },
		"nonsense=1":       func(r *CreateRequest) { r.Mounts[0].Overlay.Options = []string{"nonsense=1"} },
		"process 1":        func(r *CreateRequest) { r.Mounts = []Mount{{Shared: &FromProcess{1, "/dev/shm", p.dir}}} },
		"malformed":        func(r *CreateRequest) { r.PidFile = "relative" },
		"NUL":              func(r *CreateRequest) { r.Args[1] = "a\x00b" },
		"exceeds": func(r *CreateRequest) {
			r.Args = append(r.Args, strings.Repeat("x", 40000), strings.Repeat("x", 40000))
		},
	} {
		b := p.bundle("/bin/sh")
		b.write(t)
		change(&b.req)
		if _, err := p.client.Create(t.Context(), b.req); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("want an error about %s, got: %v", name, err)
		}
	}
	infos, err := p.client.Containers(t.Context())
	if err != nil || len(infos) != 0 {
		t.Errorf("left with the monitor: %+v, %v", infos, err)
	}
}

func TestHangingRuntimeIsKilled(t *testing.T) {
	p := newPod(t, "crun")
	b := p.bundle("/bin/sh")
	b.write(t)
	b.req.Args = []string{"/bin/sh", "-c", "echo stuck >&2; sleep 1000 & sleep 1000"}
	b.req.Timeout = 300 * time.Millisecond
	started := time.Now()
	_, err := p.client.Create(t.Context(), b.req)
	var failure *CreateError
	if !errors.As(err, &failure) || !failure.TimedOut || failure.Output != "stuck\n" || errkind.Of(err) != errkind.Timeout {
		t.Errorf("got %v", err)
	}
	if took := time.Since(started); took > 20*time.Second {
		t.Errorf("took %v", took)
	}
}

func TestCreateIsJoined(t *testing.T) {
	p := newPod(t, "crun")
	b := p.bundle("/bin/sh", "-c", "exit 3")
	b.write(t)
	b.req.Args = append([]string{"/bin/sh", "-c", `sleep 0.3; exec "$@"`, "sh"}, b.req.Args...)
	p.started = append(p.started, string(b.req.ID))

	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := p.client.Create(short, b.req); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	type result struct {
		pid int
		err error
	}
	results := make(chan result, 3)
	for range 3 {
		go func() {
			pid, err := p.client.Create(t.Context(), b.req)
			results <- result{pid, err}
		}()
	}
	pid := 0
	for range 3 {
		r := <-results
		if r.err != nil || pid != 0 && r.pid != pid {
			t.Errorf("got %+v, want PID %d", r, pid)
		}
		pid = r.pid
	}
	if again, err := p.client.Create(t.Context(), b.req); again != pid || err != nil {
		t.Errorf("got %d, %v", again, err)
	}
	p.start(b)
	if e := p.wait(b); e.Code != 3 {
		t.Errorf("exit %+v", e)
	}
}

func TestTwoContainersAtOnce(t *testing.T) {
	eachRuntime(t, func(t *testing.T, p *pod) {
		bundles := map[id.Container]*bundle{}
		for range 2 {
			b := p.bundle("/bin/sh", "-c", "for i in 1 2 3; do echo $i; done; exit 5")
			bundles[b.req.ID] = b
			p.create(b)
		}
		for _, b := range bundles {
			p.start(b)
		}
		for range 2 {
			e := <-p.exits
			if e.exit.Code != 5 {
				t.Errorf("exit %+v", e)
			}
			if got := output(readLog(t, bundles[e.container].req.LogPath), "stdout"); got != "1\n2\n3\n" {
				t.Errorf("log %q", got)
			}
		}
	})
}

func TestReconnect(t *testing.T) {
	p := newPod(t, "crun")
	first := p.bundle("/bin/sh", "-c", "exit 1")
	second := p.bundle("/bin/sh", "-c", "exec /bin/busybox sleep 1000")
	p.create(first)
	pid := p.create(second)
	if err := p.client.Close(); err != nil {
		t.Fatal(err)
	}
	p.start(first)
	p.start(second)
	waitFor(t, "the exit record", func() bool {
		_, ended, err := ReadExit(first.req.ExitFile)
		return ended && err == nil
	})
	var err error
	if p.client, err = Connect(t.Context(), p.dir, p.handler()); err != nil {
		t.Fatal(err)
	}
	if e := p.wait(first); e.Code != 1 {
		t.Errorf("exit %+v", e)
	}
	infos, err := p.client.Containers(t.Context())
	if err != nil || len(infos) != 2 {
		t.Fatalf("containers %+v, %v", infos, err)
	}
	for _, info := range infos {
		if info.ID == second.req.ID && (info.State != Running || info.PID != pid) {
			t.Errorf("the running one: %+v", info)
		}
	}
	if err := p.client.Shutdown(t.Context()); errkind.Of(err) != errkind.Precondition {
		t.Errorf("shutdown while one runs: %v", err)
	}
	if err := p.client.Kill(t.Context(), second.req.ID, unix.SIGTERM); err != nil {
		t.Error(err)
	}
	if err := p.client.Kill(t.Context(), second.req.ID, unix.SIGKILL); err != nil {
		t.Error(err)
	}
	p.wait(second)
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		if ok() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("waited in vain for %s", what)
}

func TestReopenLog(t *testing.T) {
	p := newPod(t, "crun")
	b := p.bundle("/bin/sh", "-c", "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done")
	p.create(b)
	p.start(b)
	var logs []string
	for i := range 20 {
		time.Sleep(5 * time.Millisecond)
		old := filepath.Join(b.dir, "log."+string(rune('a'+i)))
		if err := os.Rename(b.req.LogPath, old); err != nil {
			t.Fatal(err)
		}
		logs = append(logs, old)
		if err := p.client.ReopenLog(t.Context(), b.req.ID); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(b.req.LogPath); err != nil { // all output had ended
			if err := os.WriteFile(b.req.LogPath, nil, 0o640); err != nil {
				t.Fatal(err)
			}
		}
	}
	p.wait(b)
	var all []record
	for _, log := range append(logs, b.req.LogPath) {
		all = append(all, readLog(t, log)...)
	}
	if len(all) != 20000 {
		t.Errorf("%d records", len(all))
	}
	var want strings.Builder
	for i := range 20000 {
		want.WriteString("line " + itoa(i) + "\n")
	}
	if output(all, "stdout") != want.String() {
		t.Error("lines lost, doubled or out of order")
	}
}
