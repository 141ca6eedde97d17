package monitor

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-cri/gantry/internal/id"
)

// pod is a monitor with its directory, and what is needed to make containers.
type pod struct {
	t       testing.TB
	dir     string
	client  *Client
	exits   chan containerExit
	logs    chan containerLog
	runtime string // path
	root    string // the runtime's state
	cgroup  string
	started []string // containers to delete at the end
}

func newPod(t testing.TB, runtime string) *pod {
	t.Helper()
	path, err := exec.LookPath(runtime)
	if err != nil {
		t.Fatal(err)
	}
	p := &pod{
		t: t, dir: filepath.Join(t.TempDir(), string(id.NewPod())), runtime: path,
		exits: make(chan containerExit, 100), logs: make(chan containerLog, 100), cgroup: "/gantry-montest-" + string(id.NewPod())[:12],
	}
	p.root = filepath.Join(t.TempDir(), "state")
	if err := os.MkdirAll(filepath.Join(p.dir, "shm"), 0o755); err != nil {
		t.Fatal(err)
	}
	p.client, err = Launch(t.Context(), LaunchOptions{Program: shared.monitor, Dir: p.dir}, p.handler())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.cleanup()
		if left := p.mounts(); left != "" {
			t.Errorf("mounts leaked: %s", left)
		}
	})
	return p
}

// containerExit and containerLog are events of the monitor.
type containerExit struct {
	container id.Container
	exit      Exit
}

type containerLog struct {
	container id.Container
	state     LogState
}

func (p *pod) handler() Handler {
	return Handler{
		Exit: func(ctr id.Container, e Exit) { p.exits <- containerExit{ctr, e} },
		Log:  func(ctr id.Container, s LogState) { p.logs <- containerLog{ctr, s} },
	}
}

// cleanup ends everything and checks that the monitor agrees.
func (p *pod) cleanup() {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for _, ctr := range p.started {
		if out, err := exec.Command(p.runtime, "--root", p.root, "delete", "--force", ctr).CombinedOutput(); err != nil {
			p.t.Logf("delete %s: %v: %s", ctr, err, out)
		}
	}
	p.shutdown(ctx)
	cgroups, _ := filepath.Glob("/sys/fs/cgroup/*" + p.cgroup)
	for _, dir := range append(cgroups, "/sys/fs/cgroup"+p.cgroup) {
		children, _ := filepath.Glob(dir + "/*/cgroup.procs")
		for _, c := range children {
			unix.Rmdir(filepath.Dir(c))
		}
		unix.Rmdir(dir)
	}
}

func (p *pod) shutdown(ctx context.Context) {
	p.t.Helper()
	select {
	case <-p.client.Done():
		return
	default:
	}
	var err error
	for range 3000 { // until the last container's end has been noticed
		if err = p.client.Shutdown(ctx); err == nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err != nil {
		p.t.Errorf("shutdown: %v", err)
		unix.Kill(p.client.PID(), unix.SIGKILL)
	}
	<-p.client.Done()
	for range 3000 {
		// The node's init may take its time to reap it.
		if _, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", p.client.PID())); err != nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	p.t.Errorf("monitor %d is still there", p.client.PID())
}

// mounts returns the mounts that the node's namespace has of this test.
func (p *pod) mounts() string {
	p.t.Helper()
	body, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		p.t.Fatal(err)
	}
	var own []string
	for line := range strings.Lines(string(body)) {
		if strings.Contains(line, p.dir) || strings.Contains(line, shared.dir) {
			own = append(own, line)
		}
	}
	return strings.Join(own, "")
}

// bundle is a container to be created; change req and spec before create.
type bundle struct {
	dir  string
	req  CreateRequest
	spec map[string]any
}

// bundle prepares a container that runs args on an overlay of the layer.
func (p *pod) bundle(args ...string) *bundle {
	p.t.Helper()
	ctr := id.NewContainer()
	dir := filepath.Join(p.dir, "containers", string(ctr))
	for _, d := range []string{"rootfs", "upper", "work"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			p.t.Fatal(err)
		}
	}
	b := &bundle{dir: dir, spec: spec(args, p.cgroup+"/"+string(ctr))}
	b.req = CreateRequest{
		ID:      ctr,
		Args:    []string{p.runtime, "--root", p.root, "create", "--bundle", dir, "--pid-file", filepath.Join(dir, "pid"), string(ctr)},
		PidFile: filepath.Join(dir, "pid"), ExitFile: filepath.Join(dir, "exit.json"), LogPath: filepath.Join(dir, "log"),
		Timeout: 20 * time.Second,
		Mounts: []Mount{{Overlay: &Overlay{
			Target: filepath.Join(dir, "rootfs"), Lower: []string{shared.layer},
			Upper: filepath.Join(dir, "upper"), Work: filepath.Join(dir, "work"),
		}}},
	}
	return b
}

func spec(args []string, cgroup string) map[string]any {
	return map[string]any{
		"ociVersion": "1.0.2",
		"process": map[string]any{
			"user": map[string]any{"uid": 0, "gid": 0}, "args": args, "cwd": "/", "env": []string{"PATH=/bin"},
		},
		"root": map[string]any{"path": "rootfs"},
		"mounts": []any{
			map[string]any{"destination": "/proc", "type": "proc", "source": "proc"},
			map[string]any{"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": []string{"nosuid", "mode=755"}},
			map[string]any{"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": []string{"newinstance", "ptmxmode=0666"}},
		},
		"linux": map[string]any{
			"cgroupsPath": cgroup,
			"namespaces": []any{
				map[string]any{"type": "pid"}, map[string]any{"type": "mount"},
				map[string]any{"type": "ipc"}, map[string]any{"type": "uts"},
			},
		},
	}
}

func (b *bundle) process() map[string]any { return b.spec["process"].(map[string]any) }

func (b *bundle) write(t testing.TB) {
	t.Helper()
	body, err := json.Marshal(b.spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(b.dir, "config.json"), body, 0o600); err != nil {
		t.Fatal(err)
	}
}

func (p *pod) create(b *bundle) int {
	p.t.Helper()
	b.write(p.t)
	pid, err := p.client.Create(p.t.Context(), b.req)
	if err != nil {
		p.t.Fatal(err)
	}
	p.started = append(p.started, string(b.req.ID))
	return pid
}

func (p *pod) start(b *bundle) {
	p.t.Helper()
	if out, err := exec.Command(p.runtime, "--root", p.root, "start", string(b.req.ID)).CombinedOutput(); err != nil {
		p.t.Fatalf("start: %v: %s", err, out)
	}
}

func (p *pod) wait(b *bundle) Exit {
	p.t.Helper()
	select {
	case e := <-p.exits:
		if e.container != b.req.ID {
			p.t.Fatalf("exit of %s, want %s", e.container, b.req.ID)
		}
		return e.exit
	case <-time.After(time.Minute):
		p.t.Fatal("no exit within 20 s")
	}
	return Exit{}
}

// runShell runs a shell script as a container to its end.
func (p *pod) runShell(script string) (*bundle, Exit) {
	p.t.Helper()
	b := p.bundle("/bin/sh", "-c", script)
	p.create(b)
	p.start(b)
	return b, p.wait(b)
}

// record is one line of a CRI log.
type record struct {
	stream, tag string
	text        string
}

func readLog(t testing.TB, path string) []record {
	t.Helper()
	body, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var records []record
	lines := bufio.NewReader(bytes.NewReader(body))
	for {
		line, err := lines.ReadString('\n')
		if err == io.EOF {
			if line != "" {
				t.Errorf("log ends in the middle of a record: %.80q", line)
			}
			return records
		}
		parts := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 4)
		if len(parts) != 4 {
			t.Fatalf("not a record: %.80q", line)
		}
		if _, err := time.Parse("2006-01-02T15:04:05.000000000Z07:00", parts[0]); err != nil {
			t.Error(err)
		}
		records = append(records, record{parts[1], parts[2], parts[3]})
	}
}

// countRecords counts the whole records of a log that is still written: a
// reader may see half of a write.
func countRecords(t testing.TB, path string) int {
	t.Helper()
	body, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Count(body, []byte("\n"))
}

// output puts the lines of one stream together again.
func output(records []record, stream string) string {
	var out strings.Builder
	for _, r := range records {
		if r.stream != stream {
			continue
		}
		out.WriteString(r.text)
		if r.tag == "F" {
			out.WriteByte('\n')
		}
	}
	return out.String()
}

func eachRuntime(t *testing.T, test func(t *testing.T, p *pod)) {
	for _, runtime := range []string{"crun", "runc"} {
		t.Run(runtime, func(t *testing.T) { test(t, newPod(t, runtime)) })
	}
}

func pidOf(t *testing.T, path string) int {
	t.Helper()
	body, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(body)))
	if err != nil {
		t.Fatal(err)
	}
	return n
}
