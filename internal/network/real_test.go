package network

import (
	"context"
	"errors"
	mrand "math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/gantry-cri/gantry/internal/errkind"
	"github.com/gantry-cri/gantry/internal/id"
)

func TestBridge(t *testing.T) {
	b := newBed(t)
	b.conf("10.conflist", b.bridge(true))
	m := b.manager()
	eventually(t, "ready", func() bool { return m.Ready() == nil })
	pod := b.pod()
	pod.Ports = []PortMapping{{HostPort: 18080, ContainerPort: 80, Protocol: "TCP"}, {ContainerPort: 81}}
	result := b.add(m, pod)
	if len(result.IPs) != 2 || !result.IPs[0].Is4() || !result.IPs[1].Is6() {
		t.Fatalf("have the addresses %v, want a v4 and a v6", result.IPs)
	}
	b.serve(pod, 80, "hello")
	for _, addr := range []string{
		netip.AddrPortFrom(result.IPs[0], 80).String(),
		netip.AddrPortFrom(result.IPs[1], 80).String(),
		b.v4 + ".1:18080", // an address of the node: its end of the bridge
	} {
		if said, err := dial(addr); said != "hello" {
			t.Errorf("%s said %q, error %v", addr, said, err)
		}
	}
	again := b.add(m, pod)
	looked, ok := m.Lookup(pod.ID)
	if !ok {
		t.Error("an attached pod is unknown")
	}
	for _, r := range []Result{again, looked} {
		if diff := cmp.Diff(result, r, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
			t.Error(diff)
		}
	}
	b.del(m, pod)
	b.del(m, pod)
	if _, ok := m.Lookup(pod.ID); ok {
		t.Error("a detached pod is still known")
	}
	if said, err := dial(b.v4 + ".1:18080"); err == nil {
		t.Errorf("the host port still answers %q", said)
	}
}

func TestPortOnOneHostAddress(t *testing.T) {
	b := newBed(t)
	b.conf("10.conflist", b.bridge(false))
	m := b.manager()
	one, two := b.pod(), b.pod()
	b.add(m, one) // makes the bridge, and with it the node's address
	two.Ports = []PortMapping{{HostPort: 18081, ContainerPort: 80, HostIP: b.v4 + ".1"}}
	b.add(m, two)
	b.serve(two, 80, "two")
	if said, err := dial(b.v4 + ".1:18081"); said != "two" {
		t.Errorf("said %q, error %v", said, err)
	}
	if _, err := dial("127.0.0.1:18081"); err == nil {
		t.Error("the port answers on another address too")
	}
	b.del(m, two)
	b.del(m, one)
}

// plainBridge is a list of the bridge plugin alone: Debian's portmap plugin
// fails every CHECK.
func (b *bed) plainBridge() object {
	list := b.bridge(true)
	list["plugins"] = list["plugins"].([]any)[:1]
	return list
}

func TestCheck(t *testing.T) {
	b := newBed(t)
	b.conf("10.conflist", b.plainBridge())
	m := b.manager()
	pod := b.pod()
	if err := m.Check(context.Background(), pod.ID); errkind.Of(err) != errkind.NotFound {
		t.Errorf("an unknown pod: have error %v", err)
	}
	b.add(m, pod)
	if err := m.Check(context.Background(), pod.ID); err != nil {
		t.Error(err)
	}
	if err := insideNetNS(pod.NetNS, func() error { return exec.Command("ip", "link", "del", IfName).Run() }); err != nil {
		t.Fatal(err)
	}
	if err := m.Check(context.Background(), pod.ID); err == nil {
		t.Error("a pod that has lost its interface passes the check")
	}
	b.del(m, pod)
}

func TestDelAfterTheNamespaceIsGone(t *testing.T) {
	b := newBed(t)
	b.conf("10.conflist", b.bridge(true))
	m := b.manager()
	unpinned, rebooted := b.pod(), b.pod()
	for _, pod := range []Pod{unpinned, rebooted} {
		b.add(m, pod)
		if err := RemoveNetNS(pod.NetNS); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(rebooted.NetNS, nil, 0o444); err != nil { // the file without the mount
		t.Fatal(err)
	}
	b.del(m, unpinned)
	b.del(m, rebooted)
}

// TestDelAfterASandboxTookTheAddresses: a sandbox with a network stack of its own
// leaves the pod's interface without addresses, by which the bridge plugin finds
// its rules.
func TestDelAfterASandboxTookTheAddresses(t *testing.T) {
	b := newBed(t)
	b.conf("10.conflist", b.bridge(true))
	m := b.manager()
	pod := b.pod()
	b.add(m, pod)
	if err := insideNetNS(pod.NetNS, func() error { return exec.Command("ip", "addr", "flush", "dev", IfName).Run() }); err != nil {
		t.Fatal(err)
	}
	b.del(m, pod)
}

func TestDelWithoutTheConfiguration(t *testing.T) {
	b := newBed(t)
	b.conf("10.conflist", b.bridge(false))
	m := b.manager()
	pod := b.pod()
	b.add(m, pod)
	b.conf("10.conflist", nil)
	eventually(t, "not ready", func() bool { return m.Ready() != nil })
	b.close(m)
	m = b.manager()
	if r, ok := m.Lookup(pod.ID); !ok || len(r.IPs) != 1 {
		t.Errorf("after a restart: have %v, %v", r, ok)
	}
	b.del(m, pod)
}

func TestManyPodsAtOnce(t *testing.T) {
	b := newBed(t)
	b.conf("10.conflist", b.bridge(true))
	m := b.manager()
	var mu sync.Mutex // guards seen
	seen := map[netip.Addr]bool{}
	var all sync.WaitGroup
	for i := range 8 {
		pod := b.pod()
		pod.Ports = []PortMapping{{HostPort: 18100 + i, ContainerPort: 80}}
		all.Go(func() {
			var same sync.WaitGroup // the same pod twice at once is attached once
			for range 2 {
				same.Go(func() {
					r, err := m.Add(context.Background(), pod)
					if err != nil {
						t.Error(err)
					}
					mu.Lock()
					defer mu.Unlock()
					for _, ip := range r.IPs {
						seen[ip] = true
					}
				})
			}
			same.Wait()
			if err := m.Del(context.Background(), pod.ID); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if len(seen) != 16 {
		t.Errorf("have %d addresses, want 16", len(seen))
	}
	if len(m.attachments) != 0 {
		t.Errorf("the manager still has %d pods", len(m.attachments))
	}
}

func TestRecoverGivesLeasesBack(t *testing.T) {
	b := newBed(t)
	b.conf("10.conflist", b.bridge(false))
	m := b.manager()
	dead, live, damagedDead, damagedLive := b.pod(), b.pod(), b.pod(), b.pod()
	damagedDead.Ports = []PortMapping{{HostPort: 18090, ContainerPort: 80}}
	given := map[id.Pod]Result{}
	for _, pod := range []Pod{dead, live, damagedDead, damagedLive} {
		given[pod.ID] = b.add(m, pod)
	}
	b.close(m)
	for _, pod := range []Pod{damagedDead, damagedLive} {
		if err := os.Truncate(m.journal.path(pod.ID), 100); err != nil {
			t.Fatal(err)
		}
	}
	m = b.manager()
	if s := m.Status(); len(s.Damaged) != 2 {
		t.Errorf("have damaged records %v, want two", s.Damaged)
	}
	m.Recover(context.Background(), func(pod id.Pod) bool { return pod == live.ID || pod == damagedLive.ID })
	for _, pod := range []Pod{dead, damagedDead} {
		if _, ok := m.Lookup(pod.ID); ok {
			t.Error("a dead pod is still attached")
		}
	}
	for _, pod := range []Pod{live, damagedLive} {
		r, ok := m.Lookup(pod.ID)
		if !ok || r.IPs[0] != given[pod.ID].IPs[0] {
			t.Errorf("a live pod has %v, want %v", r.IPs, given[pod.ID].IPs)
		}
		b.del(m, pod)
	}
}

// TestDaemonKilledAtRandom kills a daemon (this program, run again) while it
// attaches and detaches pods with the real plugins. The next one gives
// everything back.
// A lease that a power loss has emptied is found by no DEL of host-local's; it is
// given back nonetheless, and that of a live pod is kept.
func TestRecoverFreesEmptiedLeases(t *testing.T) {
	b := newBed(t)
	b.conf("10-net.conflist", b.bridge(false))
	m := b.manager()
	lost, live := b.pod(), b.pod()
	lease := func(r Result) string { return filepath.Join(b.dir, "leases", b.network, r.IPs[0].String()) }
	lostLease, liveLease := lease(b.add(m, lost)), lease(b.add(m, live))
	whole, err := os.ReadFile(liveLease)
	if err != nil {
		t.Fatal(err)
	}
	b.close(m)
	for _, file := range []string{lostLease, liveLease} {
		if err := os.Truncate(file, 0); err != nil {
			t.Fatal(err)
		}
	}
	m = b.manager()
	m.Recover(context.Background(), func(pod id.Pod) bool { return pod == live.ID })
	if _, err := os.Stat(lostLease); !os.IsNotExist(err) {
		t.Errorf("the emptied lease of a pod that is gone: %v", err)
	}
	if err := os.WriteFile(liveLease, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	b.del(m, live)
}

func TestDaemonKilledAtRandom(t *testing.T) {
	if dir := os.Getenv("GANTRY_TEST_KILLED_AT_RANDOM"); dir != "" {
		upAndDown(t, dir)
	}
	b := newBed(t)
	b.conf("10.conflist", b.bridge(false))
	const pods, rounds = 3, 6
	for range pods {
		b.pod()
	}
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	random := mrand.New(mrand.NewPCG(uint64(seed), 0))
	for range rounds {
		daemon := exec.Command("/proc/self/exe", "-test.run", "TestDaemonKilledAtRandom$")
		daemon.Env = append(os.Environ(), "GANTRY_TEST_KILLED_AT_RANDOM="+b.dir)
		if err := daemon.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(random.IntN(700)) * time.Millisecond)
		if err := daemon.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = daemon.Wait() // it was killed
	}
	m := b.manager()
	m.Recover(context.Background(), func(id.Pod) bool { return false })
	eventually(t, "everything given back", func() bool { return len(m.formerPods()) == 0 })
}

// upAndDown attaches and detaches the pods with a namespace below dir, for ever.
func upAndDown(t *testing.T, dir string) {
	m, err := New(Options{
		Settings: Settings{ConfDir: filepath.Join(dir, "net.d"), BinDirs: []string{realPlugins()}},
		StateDir: filepath.Join(dir, "state"),
	})
	if err != nil {
		t.Fatal(err)
	}
	namespaces, err := filepath.Glob(filepath.Join(dir, "netns", "*"))
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for i, ns := range namespaces {
		pod := Pod{ID: id.Pod(filepath.Base(ns)), NetNS: ns, Ports: []PortMapping{{HostPort: 18200 + i, ContainerPort: 80}}}
		all.Go(func() {
			for {
				_, err := m.Add(context.Background(), pod)
				if err = errors.Join(err, m.Del(context.Background(), pod.ID)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
}

func TestShippedConfiguration(t *testing.T) {
	body, err := os.ReadFile("../../conf/10-gantry-bridge.conflist")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "10-gantry-bridge.conflist"), body, 0o644); err != nil {
		t.Fatal(err)
	}
	if s := scanDir(dir, []string{realPlugins()}); s.unusable != nil || len(s.problems) > 0 {
		t.Errorf("have %v, problems %v", s.unusable, s.problems)
	}
}

// BenchmarkAttach compares ADD and DEL with the same plugins run by libcni's
// own means.
func BenchmarkAttach(bb *testing.B) {
	b := newBed(bb)
	conf := b.bridge(false)
	b.conf("10.conflist", conf)
	m := b.manager()
	pod := func() Pod {
		p := b.pod()
		p.Ports = []PortMapping{{HostPort: 18095, ContainerPort: 80}}
		return p
	}
	b.del(m, first(b, m, pod()))
	ctx := context.Background()
	for _, op := range []string{"ADD", "DEL"} {
		bb.Run(op+"/gantry", func(bb *testing.B) {
			for bb.Loop() {
				bb.StopTimer()
				p := pod()
				timed(bb, op == "ADD", func() { b.add(m, p) })
				timed(bb, op == "DEL", func() { b.del(m, p) })
				bb.StartTimer()
			}
		})
		bb.Run(op+"/bare", func(bb *testing.B) {
			cni := libcni.NewCNIConfigWithCacheDir(b.opts.BinDirs, filepath.Join(b.dir, "bare"), nil)
			list := m.scan.Load().network
			for bb.Loop() {
				bb.StopTimer()
				r, err := newRecord(list, pod())
				if err != nil {
					bb.Fatal(err)
				}
				timed(bb, op == "ADD", func() { _, err = cni.AddNetworkList(ctx, list.list, r.runtimeConf()) })
				if err != nil {
					bb.Fatal(err)
				}
				timed(bb, op == "DEL", func() { err = cni.DelNetworkList(ctx, list.list, r.runtimeConf()) })
				if err != nil {
					bb.Fatal(err)
				}
				bb.StartTimer()
			}
		})
	}
}

func first(b *bed, m *Manager, pod Pod) Pod {
	b.add(m, pod)
	return pod
}

// timed runs fn with the benchmark's timer on or off.
func timed(b *testing.B, on bool, fn func()) {
	if on {
		b.StartTimer()
		defer b.StopTimer()
	}
	fn()
}
