package monitor

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-cri/gantry/internal/errkind"
	"github.com/gantry-cri/gantry/internal/id"
)

// A process that a container leaves behind keeps its output, and delays no exit.
func TestExitDoesNotWaitForDescendants(t *testing.T) {
	eachRuntime(t, func(t *testing.T, p *pod) {
		b := p.bundle("/bin/sh", "-c", "(/bin/busybox sleep 4; echo -n late) & echo early; exit 3")
		linux := b.spec["linux"].(map[string]any)
		linux["namespaces"] = linux["namespaces"].([]any)[1:] // the node's PIDs
		p.create(b)
		p.start(b)
		started := time.Now()
		if e := p.wait(b); e.Code != 3 {
			t.Errorf("exit %+v", e)
		}
		if took := time.Since(started); took > 3*time.Second {
			t.Errorf("told after %v", took)
		}
		if got := output(readLog(t, b.req.LogPath), "stdout"); got != "early\n" {
			t.Errorf("log at the exit %q", got)
		}
		waitFor(t, "the late output", func() bool {
			return output(readLog(t, b.req.LogPath), "stdout") == "early\nlate"
		})
	})
}

func TestUnfinishedLineIsShown(t *testing.T) {
	p := newPod(t, "crun")
	b := p.bundle("/bin/sh", "-c", "echo -n 'login: '; read word; echo $word")
	b.req.Stdin = true
	p.create(b)
	s := p.attach(b, AttachOptions{Stdin: true})
	p.start(b)
	waitFor(t, "the prompt", func() bool { return countRecords(t, b.req.LogPath) == 1 })
	if _, err := s.Write([]byte("me\n")); err != nil {
		t.Fatal(err)
	}
	p.wait(b)
	want := []record{{"stdout", "P", "login: "}, {"stdout", "F", "me"}}
	if got := readLog(t, b.req.LogPath); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("log %v", got)
	}
}

func TestLogSizeMax(t *testing.T) {
	p := newPod(t, "crun")
	b := p.bundle("/bin/busybox", "seq", "100000")
	b.req.LogSizeMax = 100_000
	p.create(b)
	p.start(b)
	p.wait(b)
	records := readLog(t, b.req.LogPath)
	info, err := os.Stat(b.req.LogPath)
	if err != nil || info.Size() > 100_000 || len(records) == 0 || records[len(records)-1].text != "100000" {
		t.Errorf("%v, %d records, %v", info.Size(), len(records), err)
	}
}

func TestWithoutLog(t *testing.T) {
	p := newPod(t, "crun")
	b := p.bundle("/bin/busybox", "seq", "100000")
	b.req.LogPath = ""
	p.create(b)
	if err := p.client.ReopenLog(t.Context(), b.req.ID); err != nil {
		t.Error(err)
	}
	p.start(b)
	if e := p.wait(b); e.Code != 0 {
		t.Errorf("exit %+v", e)
	}
}

// oomFile is where the kernel counts what it killed, and the limit's name there.
func oomFile(cgroup string) string {
	if _, err := os.Stat("/sys/fs/cgroup/memory"); err == nil {
		return "/sys/fs/cgroup/memory" + cgroup + "/memory.oom_control"
	}
	return "/sys/fs/cgroup" + cgroup + "/memory.events"
}

func TestOutOfMemory(t *testing.T) {
	eachRuntime(t, func(t *testing.T, p *pod) {
		b := p.bundle("/bin/sh", "-c", "exec /bin/busybox dd if=/dev/zero of=/tmp/x bs=100M count=1")
		linux := b.spec["linux"].(map[string]any)
		linux["resources"] = map[string]any{"memory": map[string]any{"limit": 16 << 20}}
		b.req.OOMFile = oomFile(linux["cgroupsPath"].(string))
		p.create(b)
		p.start(b)
		if e := p.wait(b); !e.OOMKilled || e.Signal != 9 {
			t.Errorf("exit %+v: %v", e, readLog(t, b.req.LogPath))
		}
	})
}

// Where systemd has removed a container's cgroup before the monitor looked, the
// pod's tells what was killed in it.
func TestOutOfMemoryInACgroupThatIsGone(t *testing.T) {
	eachRuntime(t, func(t *testing.T, p *pod) {
		dir := t.TempDir() // in the place of the pod's cgroup
		count := func(cgroup string, kills int) {
			t.Helper()
			file := filepath.Join(dir, cgroup, "memory.events")
			if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, fmt.Appendf(nil, "oom %d\noom_kill %d\n", kills, kills), 0o644)); err != nil {
				t.Fatal(err)
			}
		}
		count("", 7) // of containers before this monitor
		bundles := map[string]*bundle{}
		begin := func(name, limit string) {
			t.Helper()
			count(name, 0)
			if err := os.WriteFile(filepath.Join(dir, name, "memory.max"), []byte(limit), 0o644); err != nil {
				t.Fatal(err)
			}
			b := p.bundle("/bin/sh", "-c", "exec /bin/busybox sleep 1000")
			b.req.OOMFile = filepath.Join(dir, name, "memory.events")
			bundles[name] = b
			p.create(b)
			p.start(b)
		}
		for _, name := range []string{"alive", "killed", "first", "second"} {
			begin(name, "max\n")
		}
		gone := func(name string) bool {
			t.Helper()
			if err := errors.Join(os.RemoveAll(filepath.Join(dir, name)), unix.Kill(pidOf(t, bundles[name].req.PidFile), unix.SIGKILL)); err != nil {
				t.Fatal(err)
			}
			return p.wait(bundles[name]).OOMKilled
		}
		count("alive", 1) // a child of its own, which it has survived
		count("", 8)
		if gone("killed") {
			t.Error("a plain kill counts as one for lack of memory, for another container had one")
		}
		count("", 9)
		if !gone("first") {
			t.Error("a kill for lack of memory is not told")
		}
		if gone("second") {
			t.Error("a kill for lack of memory is told of two containers")
		}

		// Two cgroups go at once: it was the one with little memory left.
		begin("idle", "1073741824\n")
		begin("full", "1024\n")
		count("", 10)
		if err := os.RemoveAll(filepath.Join(dir, "full")); err != nil {
			t.Fatal(err)
		}
		if gone("idle") {
			t.Error("a kill for lack of memory is told of a container that had enough, while another's cgroup has gone too")
		}
		if !gone("full") {
			t.Error("a kill for lack of memory is not told, for another container's cgroup had gone too")
		}

		// Both were killed.
		begin("one", "1024\n")
		begin("other", "1024\n")
		count("", 12)
		if err := os.RemoveAll(filepath.Join(dir, "other")); err != nil {
			t.Fatal(err)
		}
		if one, other := gone("one"), gone("other"); !one || !other {
			t.Errorf("of two kills for lack of memory at once are told: %v, %v", one, other)
		}

		// One begins between another's kill and the end that is told of it.
		begin("early", "max\n")
		count("", 13)
		if err := os.RemoveAll(filepath.Join(dir, "early")); err != nil {
			t.Fatal(err)
		}
		begin("late", "max\n")
		if !gone("early") {
			t.Error("a kill for lack of memory is not told, for another container has begun since")
		}
		count("", 14)
		if !gone("late") {
			t.Error("a kill for lack of memory is not told of a container that began amid another's end")
		}
	})
}

// The init of a container whose creation failed is not left running.
func TestTimeoutAfterTheContainerExists(t *testing.T) {
	eachRuntime(t, func(t *testing.T, p *pod) {
		b := p.bundle("/bin/sh")
		b.write(t)
		b.req.Args = append([]string{"/bin/sh", "-c", `"$@"; sleep 1000`, "sh"}, b.req.Args...)
		b.req.Timeout = time.Second
		p.started = append(p.started, string(b.req.ID))
		if _, err := p.client.Create(t.Context(), b.req); errkind.Of(err) != errkind.Timeout {
			t.Errorf("got %v", err)
		}
		pid := pidOf(t, b.req.PidFile)
		waitFor(t, "the end of the container's process", func() bool { return unix.Kill(pid, 0) == unix.ESRCH })
	})
}

func TestPidFileMustNameAChild(t *testing.T) {
	p := newPod(t, "crun")
	for _, words := range []string{"1", "", "garbage", "-5", strconv.Itoa(os.Getpid()), "99999999999999999999"} {
		b := p.bundle("/bin/sh")
		b.req.Args = []string{"/bin/sh", "-c", `echo -n "$1" > "$2"`, "sh", words, b.req.PidFile}
		if _, err := p.client.Create(t.Context(), b.req); err == nil || !strings.Contains(err.Error(), "pid file") {
			t.Errorf("pid file %q: %v", words, err)
		}
	}
}

// What a node sends to everything when it shuts down must not lose an exit.
func TestSigtermWaitsForContainers(t *testing.T) {
	p := newPod(t, "crun")
	b := p.bundle("/bin/busybox", "sleep", "1000")
	p.create(b)
	p.start(b)
	for _, sig := range []unix.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGPIPE, unix.SIGTERM} {
		if err := unix.Kill(p.client.PID(), sig); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.client.Kill(t.Context(), b.req.ID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if e := p.wait(b); e.Signal != 9 {
		t.Errorf("exit %+v", e)
	}
	<-p.client.Done()
	if read, ended, err := ReadExit(b.req.ExitFile); !ended || read.Signal != 9 || err != nil {
		t.Errorf("recorded %+v, %v", read, err)
	}
}

func TestOneMonitorPerDirectory(t *testing.T) {
	p := newPod(t, "crun")
	if _, err := Launch(t.Context(), LaunchOptions{Program: shared.monitor, Dir: p.dir}, Handler{}); err == nil ||
		!strings.Contains(err.Error(), "another monitor") {
		t.Errorf("got %v", err)
	}
	if _, err := p.client.Containers(t.Context()); err != nil {
		t.Errorf("the first one: %v", err)
	}
}

func TestMovesIntoCgroups(t *testing.T) {
	root := "/sys/fs/cgroup"
	if _, err := os.Stat(root + "/memory"); err == nil {
		root += "/memory"
	}
	cgroup := filepath.Join(root, "gantry-montest-"+filepath.Base(t.TempDir())+strconv.Itoa(os.Getpid()))
	if err := os.Mkdir(cgroup, 0o755); err != nil {
		t.Fatal(err)
	}
	defer unix.Rmdir(cgroup)
	dir := t.TempDir()
	c, err := Launch(t.Context(), LaunchOptions{Program: shared.monitor, Dir: dir, Cgroups: []string{"/no/such", cgroup}}, Handler{})
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the monitor in its cgroup", func() bool {
		body, err := os.ReadFile(filepath.Join(cgroup, "cgroup.procs"))
		return err == nil && strings.Contains(string(body), strconv.Itoa(c.PID())+"\n")
	})
	if err := c.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	<-c.Done()
	waitFor(t, "the empty cgroup", func() bool { return unix.Rmdir(cgroup) == nil })
}

// Nothing stays behind in the monitor or in its client.
func TestNothingGrows(t *testing.T) {
	p := newPod(t, "crun")
	goroutines := runtime.NumGoroutine()
	fds := func() int {
		entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.client.PID()))
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	before := fds()
	for range 20 {
		b, _ := p.runShell("/bin/busybox seq 5000")
		if err := p.client.Forget(t.Context(), b.req.ID); err != nil {
			t.Error(err)
		}
		c, err := Connect(t.Context(), p.dir, p.handler())
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	waitFor(t, "the descriptors", func() bool { return fds() == before })
	waitFor(t, "the goroutines", func() bool { return runtime.NumGoroutine() <= goroutines })
}

// maxIdle bounds the memory that a monitor has for itself once its containers
// are quiet; what it shares with the other monitors of the node does not count.
const maxIdle = 60 // KiB

func TestIdleMemory(t *testing.T) {
	if os.Getenv(sanitizedEnv) != "" {
		t.Skip("not a figure of the real monitor")
	}
	p := newPod(t, "crun")
	b := p.bundle("/bin/sh", "-c", "/bin/busybox seq 300000; exec /bin/busybox sleep 1000")
	p.create(b)
	p.start(b)
	anonymous := 0
	waitFor(t, "an idle monitor", func() bool {
		body, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", p.client.PID()))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(body)) {
			if f := strings.Fields(line); f[0] == "Anonymous:" {
				anonymous, _ = strconv.Atoi(f[1])
			}
		}
		log, err := os.ReadFile(b.req.LogPath)
		return err == nil && bytes.Count(log, []byte("\n")) == 300000 && anonymous <= maxIdle
	})
	t.Logf("%d KiB", anonymous)
}

// rawConn speaks the protocol by hand.
func rawConn(t *testing.T, dir string) *net.UnixConn {
	t.Helper()
	conn, err := dial(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn
}

func TestOddMessages(t *testing.T) {
	p := newPod(t, "crun")
	conn := rawConn(t, p.dir)
	unknown := newMessage(999, 5)
	critical := about(gmKill, "")
	critical.putUint32(gmTagCritical|999, 1)
	malformed := newMessage(gmKill, 0)
	malformed.bytes = append(malformed.bytes, 1, 2, 3)
	version := newMessage(gmHello, 0)
	version.bytes[0] = 99
	large := newMessage(gmHello, 0)
	large.bytes = append(large.bytes, make([]byte, gmMaxMessage)...)
	noID := about(gmKill, "../../x")
	for name, c := range map[string]struct {
		m    *message
		want error
	}{
		"unknown type":      {unknown, unix.ENOSYS},
		"critical field":    {critical, unix.ENOTSUP},
		"half a field":      {malformed, unix.EBADMSG},
		"other version":     {version, unix.EPROTONOSUPPORT},
		"too large":         {large, unix.E2BIG},
		"not an id":         {noID, unix.EINVAL},
		"no container":      {newMessage(gmKill, 0), unix.EINVAL},
		"unknown container": {about(gmKill, id.NewContainer()), unix.ENXIO},
	} {
		c.m.setID(77)
		if _, err := conn.Write(c.m.bytes); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		buf := make([]byte, gmMaxMessage)
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		kind, callID, fields, err := parse(buf[:n])
		if got := replyError(fields); kind != gmReply || callID != 77 || err != nil || !errors.Is(got, c.want) {
			t.Errorf("%s: type %d, id %d, %v, %v", name, kind, callID, err, got)
		}
	}
	if _, err := conn.Write([]byte("GET / HTTP/1.1")); err != nil {
		t.Fatal(err)
	}
	if n, err := conn.Read(make([]byte, 10)); n > 0 || err == nil {
		t.Errorf("after garbage: %d bytes, %v", n, err)
	}
}

// A client that asks and never reads is disconnected; others notice nothing.
func TestClientThatNeverReads(t *testing.T) {
	p := newPod(t, "crun")
	conn := rawConn(t, p.dir)
	m := newMessage(gmList, 1)
	sent := 0
	for ; sent < 1_000_000; sent++ {
		if _, err := conn.Write(m.bytes); err != nil {
			break
		}
	}
	if sent == 1_000_000 {
		t.Error("it was never disconnected")
	}
	if _, err := p.client.Containers(t.Context()); err != nil {
		t.Error(err)
	}
}

// Only the monitor's own user gets an answer, even if it may open the socket.
func TestOtherUsersAreRefused(t *testing.T) {
	p := newPod(t, "crun")
	socket := filepath.Join(p.dir, socketName)
	info, err := os.Stat(socket)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if err := os.Chmod(socket, 0o666); err != nil {
		t.Fatal(err)
	}
	for dir := p.dir; dir != os.TempDir(); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	helper := filepath.Join(filepath.Dir(p.dir), "helper")
	if err := copyFile("/proc/self/exe", helper); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(helper)
	cmd.Env = []string{helperEnv + "=" + p.dir}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != "refused" {
		t.Errorf("%v: %s", err, out)
	}
}

// helperEnv makes this program connect to the monitor in the directory that it
// names, and print how that went.
const helperEnv = "GANTRY_TEST_CONNECT"

func TestInheritsNoDescriptors(t *testing.T) {
	var ends [2]int
	if err := unix.Pipe2(ends[:], 0); err != nil { // not close-on-exec
		t.Fatal(err)
	}
	defer unix.Close(ends[0])
	p := newPod(t, "crun")
	unix.Close(ends[1])
	ready := []unix.PollFd{{Fd: int32(ends[0])}}
	if n, err := unix.Poll(ready, 5000); n != 1 || err != nil || ready[0].Revents&unix.POLLHUP == 0 {
		t.Errorf("monitor %d keeps a pipe open: %v", p.client.PID(), err)
	}
}
