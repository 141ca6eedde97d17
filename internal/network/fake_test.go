package network

import (
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gantry-cri/gantry/internal/errkind"
	"github.com/gantry-cri/gantry/internal/id"
)

// set makes a file of the fake plugin's directory; unset removes it.
func set(t *testing.T, dir, file, body string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, file), []byte(body), 0o644); err != nil {
		t.Fatal(err)
	}
}

func unset(t *testing.T, dir, file string) {
	t.Helper()
	if err := os.Remove(filepath.Join(dir, file)); err != nil {
		t.Fatal(err)
	}
}

func TestWhatThePluginIsTold(t *testing.T) {
	b := newBed(t)
	dir := b.fake()
	b.conf("10.conflist", b.fakeConf("1.0.0", "portMappings", "bandwidth", "dns"))
	m := b.manager()
	pod := b.pod()
	pod.Ports = []PortMapping{{HostPort: 8080, ContainerPort: 80, Protocol: "UDP", HostIP: "127.0.0.1"}, {HostPort: 9}}
	pod.DNS = DNS{Servers: []string{"8.8.8.8"}}
	pod.Annotations = map[string]string{"kubernetes.io/ingress-bandwidth": "10M"}
	pod.CgroupParent = "/x"
	result := b.add(m, pod)
	if len(result.IPs) != 1 || result.IPs[0] != netip.MustParseAddr("10.0.0.9") {
		t.Errorf("have the addresses %v, want those of the pod's interface only", result.IPs)
	}
	stdin, err := os.ReadFile(filepath.Join(dir, "stdin.ADD"))
	if err != nil {
		t.Fatal(err)
	}
	want := `"runtimeConfig":{"bandwidth":{"ingressRate":10000000,"ingressBurst":2147483647},` +
		`"dns":{"servers":["8.8.8.8"]},` +
		`"portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"udp","hostIP":"127.0.0.1"}]}`
	if !strings.Contains(string(stdin), want) {
		t.Errorf("missing %s in %s", want, stdin)
	}
	calls, err := os.ReadFile(filepath.Join(dir, "calls"))
	if err != nil {
		t.Fatal(err)
	}
	want = "ADD " + string(pod.ID) + " eth0 " + pod.NetNS + " IgnoreUnknown=1;K8S_POD_NAMESPACE=default;" +
		"K8S_POD_NAME=web;K8S_POD_INFRA_CONTAINER_ID=" + string(pod.ID) + ";K8S_POD_UID=u-1\n"
	if string(calls) != want {
		t.Errorf("the plugin was called with\n%swant\n%s", calls, want)
	}
	b.del(m, pod)
	deleted, err := os.ReadFile(filepath.Join(dir, "stdin.DEL"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(deleted), `"prevResult"`) || !strings.Contains(string(deleted), `"hostPort":8080`) {
		t.Errorf("DEL was not told the result and the ports: %s", deleted)
	}
}

func TestFailedAddIsUndone(t *testing.T) {
	b := newBed(t)
	dir := b.fake()
	b.conf("10.conflist", b.fakeConf("1.0.0"))
	m := b.manager()
	pod := b.pod()
	for _, tc := range []struct{ said, want string }{
		{`{"code":11,"msg":"no more addresses","details":"in 10.0.0.0/24"}`, "no more addresses; in 10.0.0.0/24"},
		{"panic: oh", "panic: oh"},
		{"", "exit status 1"},
	} {
		set(t, dir, "fail.ADD", tc.said)
		_, err := m.Add(context.Background(), pod)
		if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), b.network) {
			t.Errorf("have error %v, want one with %q and the network", err, tc.want)
		}
	}
	unset(t, dir, "fail.ADD")
	if have := b.calls(pod.ID); have != "ADD DEL ADD DEL ADD DEL" {
		t.Errorf("the plugin was called with %s", have)
	}
	b.add(m, pod)
	b.del(m, pod)
}

func TestResultWithoutAddressIsUndone(t *testing.T) {
	b := newBed(t)
	dir := b.fake()
	b.write(filepath.Join(b.dir, "bin", "fake"), "#!/bin/sh\necho $CNI_COMMAND $CNI_CONTAINERID >> "+dir+"/calls\necho {}\n", 0o755)
	b.conf("10.conflist", b.fakeConf("1.0.0"))
	m := b.manager()
	pod := b.pod()
	if _, err := m.Add(context.Background(), pod); err == nil || !strings.Contains(err.Error(), "no IP address") {
		t.Errorf("have error %v", err)
	}
	if have := b.calls(pod.ID); have != "ADD DEL" {
		t.Errorf("the plugin was called with %s", have)
	}
}

func TestFailedDelIsRetried(t *testing.T) {
	b := newBed(t)
	dir := b.fake()
	b.conf("10.conflist", b.fakeConf("1.0.0"))
	m := b.manager()
	pod := b.pod()
	b.add(m, pod)
	set(t, dir, "fail.DEL", `{"code":100,"msg":"not now"}`)
	if err := m.Del(context.Background(), pod.ID); err == nil || !strings.Contains(err.Error(), "not now") {
		t.Errorf("have error %v", err)
	}
	if err := RemoveNetNS(pod.NetNS); err != nil { // as the pod's owner does
		t.Fatal(err)
	}
	if s := m.Status(); len(s.Pending) != 1 || s.Pending[0] != pod.ID {
		t.Errorf("have pending %v", s.Pending)
	}
	unset(t, dir, "fail.DEL")
	eventually(t, "the retry", func() bool { return len(m.Status().Pending) == 0 })
	if have := b.calls(pod.ID); have != "ADD DEL DEL" {
		t.Errorf("the plugin was called with %s", have)
	}
	calls, err := os.ReadFile(filepath.Join(dir, "calls"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(calls), m.journal.netns(pod.ID)) {
		t.Errorf("the retry was not given the namespace that was kept:\n%s", calls)
	}
}

func TestFailedUndoIsRetriedAfterARestart(t *testing.T) {
	b := newBed(t)
	dir := b.fake()
	b.conf("10.conflist", b.fakeConf("1.0.0"))
	m := b.manager()
	pod := b.pod()
	set(t, dir, "fail.ADD", "")
	set(t, dir, "fail.DEL", "")
	if _, err := m.Add(context.Background(), pod); err == nil || !strings.Contains(err.Error(), "undo") {
		t.Errorf("have error %v", err)
	}
	b.close(m)
	unset(t, dir, "fail.DEL")
	b.conf("10.conflist", nil)
	m = b.manager()
	m.Recover(context.Background(), func(id.Pod) bool { return true })
	if have := b.calls(pod.ID); have != "ADD DEL DEL" {
		t.Errorf("the plugin was called with %s", have)
	}
}

func TestMissingPlugin(t *testing.T) {
	b := newBed(t)
	b.fake()
	b.conf("10.conflist", b.fakeConf("1.0.0"))
	m := b.manager()
	pod := b.pod()
	b.add(m, pod)
	plugin := filepath.Join(b.dir, "bin", "fake")
	body, err := os.ReadFile(plugin)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(plugin); err != nil {
		t.Fatal(err)
	}
	if err := m.Del(context.Background(), pod.ID); errkind.Of(err) != errkind.Unavailable {
		t.Errorf("have error %v, want one of kind Unavailable", err)
	}
	eventually(t, "the missing plugin is told", func() bool {
		err := m.Ready()
		return err != nil && strings.Contains(err.Error(), `"fake" is not in `+filepath.Dir(plugin)+" or ")
	})
	if _, err := m.Add(context.Background(), b.pod()); errkind.Of(err) != errkind.Unavailable {
		t.Errorf("have error %v, want one of kind Unavailable", err)
	}
	b.write(plugin, string(body), 0o755)
	eventually(t, "ready again", func() bool { return m.Ready() == nil })
	b.del(m, pod)
}

func TestHangingPluginIsKilled(t *testing.T) {
	b := newBed(t)
	dir := b.fake()
	b.conf("10.conflist", b.fakeConf("1.0.0"))
	b.opts.Timeout = 2 * time.Second
	m := b.manager()
	pod, other := b.pod(), b.pod()
	set(t, dir, "hang.ADD", "")
	start := time.Now()
	_, err := m.Add(context.Background(), pod)
	if errkind.Of(err) != errkind.Timeout || !strings.Contains(err.Error(), "2s") {
		t.Errorf("have error %v, want one of kind Timeout", err)
	}
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("it took %v", took)
	}
	if pids := processesWith(string(pod.ID)); len(pids) > 0 {
		t.Errorf("processes %v are left of the plugin", pids)
	}
	if have := b.calls(pod.ID); have != "ADD DEL" {
		t.Errorf("the plugin was called with %s", have)
	}

	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := m.Add(ctx, pod); err == nil {
		t.Error("a caller's deadline is not kept")
	}
	unset(t, dir, "hang.ADD")
	b.add(m, other)
	set(t, dir, "hang.DEL", "")
	if err := m.Del(context.Background(), other.ID); errkind.Of(err) != errkind.Timeout {
		t.Errorf("have error %v, want one of kind Timeout", err)
	}
	unset(t, dir, "hang.DEL")
	b.del(m, other)
}

func TestAHangingPodDelaysNoOther(t *testing.T) {
	b := newBed(t)
	dir := b.fake()
	b.conf("10.conflist", b.fakeConf("1.0.0"))
	m := b.manager()
	stuck, free := b.pod(), b.pod()
	set(t, dir, "hang.ADD", "")
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() {
		_, err := m.Add(ctx, stuck)
		ended <- err
	}()
	eventually(t, "the plugin hangs", func() bool { return b.calls(stuck.ID) == "ADD" })
	unset(t, dir, "hang.ADD")
	b.add(m, free)
	b.del(m, free)
	start := time.Now()
	if _, ok := m.Lookup(stuck.ID); ok {
		t.Error("the pod is said to be attached")
	}
	if err := m.Ready(); err != nil {
		t.Error(err)
	}
	_ = m.Status()
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("looking took %v", took)
	}
	waiting, stop := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer stop()
	if err := m.Del(waiting, stuck.ID); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("waiting for the pod's turn: have error %v", err)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("have error %v, want one that wraps context.Canceled", err)
	}
	if have := b.calls(stuck.ID); have != "ADD DEL" {
		t.Errorf("the plugin was called with %s", have)
	}
}

// TestKilledDaemon kills a daemon (this program, run again) in the middle of an
// ADD, whose plugin lives on.
func TestKilledDaemon(t *testing.T) {
	if state := os.Getenv("GANTRY_TEST_KILLED_DAEMON"); state != "" {
		m, err := New(Options{Settings: Settings{ConfDir: filepath.Join(state, "net.d"), BinDirs: []string{filepath.Join(state, "bin")}}, StateDir: filepath.Join(state, "state")})
		if err != nil {
			t.Fatal(err)
		}
		pod := id.Pod(os.Getenv("GANTRY_TEST_POD"))
		_, err = m.Add(context.Background(), Pod{ID: pod, NetNS: filepath.Join(state, "netns", string(pod))})
		t.Fatal("ADD ended: ", err)
	}
	b := newBed(t)
	dir := b.fake()
	b.conf("10.conflist", b.fakeConf("1.0.0"))
	set(t, dir, "hang.ADD", "")
	pod := b.pod()
	daemon := exec.Command("/proc/self/exe", "-test.run", "TestKilledDaemon$")
	daemon.Env = append(os.Environ(), "GANTRY_TEST_KILLED_DAEMON="+b.dir, "GANTRY_TEST_POD="+string(pod.ID))
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the plugin hangs", func() bool { return b.calls(pod.ID) == "ADD" && len(processesWith("sleep\x001000")) >= 2 })
	if err := daemon.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = daemon.Wait() // it was killed
	if pids := processesWith(string(pod.ID)); len(pids) < 2 {
		t.Errorf("the plugin should have outlived the daemon; have processes %v", pids)
	}
	unset(t, dir, "hang.ADD")
	b.opts.Timeout = 2 * time.Second // bounds the grace too
	m := b.manager()
	if _, ok := m.Lookup(pod.ID); ok {
		t.Error("an ADD cut short is taken for done")
	}
	m.Recover(context.Background(), func(id.Pod) bool { return true })
	if have := b.calls(pod.ID); have != "ADD DEL" {
		t.Errorf("the plugin was called with %s", have)
	}
	if pids := processesWith(string(pod.ID)); len(pids) > 0 {
		t.Errorf("processes %v are left of the plugin", pids)
	}
	b.add(m, pod)
	b.del(m, pod)
}

// TestIntentIsEndedFirst: an Add of a pod whose ADD was cut short begins with DEL.
func TestIntentIsEndedFirst(t *testing.T) {
	b := newBed(t)
	b.fake()
	b.conf("10.conflist", b.fakeConf("1.0.0"))
	m := b.manager()
	pod := b.pod()
	r, err := newRecord(m.scan.Load().network, pod)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.journal.write(r); err != nil {
		t.Fatal(err)
	}
	b.close(m)
	m = b.manager()
	b.add(m, pod)
	m.Recover(context.Background(), func(id.Pod) bool { return false }) // too late to matter
	if have := b.calls(pod.ID); have != "DEL ADD" {
		t.Errorf("the plugin was called with %s", have)
	}
	b.del(m, pod)
}

func TestGarbageIsCollected(t *testing.T) {
	b := newBed(t)
	dir := b.fake()
	b.conf("10.conflist", b.fakeConf("1.1.0"))
	m := b.manager()
	live, dead := b.pod(), b.pod()
	b.add(m, live)
	b.add(m, dead)
	b.close(m)
	if err := os.WriteFile(m.journal.lock(id.NewPod()), nil, 0o600); err != nil { // of a removal cut short
		t.Fatal(err)
	}
	m = b.manager()
	m.Recover(context.Background(), func(pod id.Pod) bool { return pod == live.ID })
	stdin, err := os.ReadFile(filepath.Join(dir, "stdin.GC"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(stdin), string(live.ID)) || strings.Contains(string(stdin), string(dead.ID)) {
		t.Errorf("GC was told %s", stdin)
	}
	if have := b.calls(dead.ID); have != "ADD DEL" {
		t.Errorf("the plugin was called with %s", have)
	}
	b.del(m, live)
}

func TestStatus(t *testing.T) {
	b := newBed(t)
	dir := b.fake()
	set(t, dir, "fail.STATUS", `{"code":50,"msg":"agent is not up"}`)
	b.conf("10.conflist", b.fakeConf("1.1.0"))
	m := b.manager()
	eventually(t, "STATUS is told", func() bool {
		err := m.Ready()
		return errkind.Of(err) == errkind.Unavailable && strings.Contains(err.Error(), "agent is not up")
	})
	unset(t, dir, "fail.STATUS")
	changed := b.fakeConf("1.1.0")
	changed["x"] = 1
	b.conf("10.conflist", changed) // asks at once
	eventually(t, "ready", func() bool { return m.Ready() == nil })
	if s := m.Status(); s.Network != b.network || s.ConfFile != filepath.Join(b.opts.ConfDir, "10.conflist") {
		t.Errorf("have %+v", s)
	}
}

func TestBadRequests(t *testing.T) {
	b := newBed(t)
	b.fake()
	b.conf("10.conflist", b.fakeConf("1.0.0"))
	m := b.manager()
	good := b.pod()
	for name, change := range map[string]func(*Pod){
		"id":       func(p *Pod) { p.ID = "../x" },
		"port":     func(p *Pod) { p.Ports = []PortMapping{{HostPort: 70000, ContainerPort: 1}} },
		"protocol": func(p *Pod) { p.Ports = []PortMapping{{HostPort: 7, ContainerPort: 1, Protocol: "icmp"}} },
		"host IP":  func(p *Pod) { p.Ports = []PortMapping{{HostPort: 7, ContainerPort: 1, HostIP: "here"}} },
		"rate":     func(p *Pod) { p.Annotations = map[string]string{egressAnnotation: "fast"} },
	} {
		pod := good
		change(&pod)
		if _, err := m.Add(context.Background(), pod); errkind.Of(err) != errkind.Invalid {
			t.Errorf("%s: have error %v, want one of kind Invalid", name, err)
		}
	}
	if len(m.attachments) != 0 {
		t.Errorf("the manager still has %d pods", len(m.attachments))
	}
	if _, err := os.Stat(filepath.Join(b.dir, "fake", "calls")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the plugin was called")
	}
}
