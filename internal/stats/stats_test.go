package stats

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/internal/id"
	"github.com/gantry-cri/gantry/internal/node"
)

// write makes files below dir; a name's directories are made too.
func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// factsV2 and factsV1 are nodes whose control groups are files below dir.
func factsV2(dir string) node.Facts { return node.Facts{CgroupV2: true, CgroupRoot: dir} }

func factsV1(dir string) node.Facts {
	f := node.Facts{CgroupV1: map[string]string{}, CgroupUnified: filepath.Join(dir, "unified")}
	for _, c := range []string{"cpu", "cpuacct", "memory", "pids", "blkio"} {
		f.CgroupV1[c] = filepath.Join(dir, c)
	}
	return f
}

const psi = "some avg10=1.50 avg60=0.25 avg300=0.00 total=3000000\nfull avg10=0.50 avg60=0.00 avg300=0.00 total=1000001\n"

// filesV2 is a container's cgroup as version 2 shows it.
func filesV2() map[string]string {
	return map[string]string{
		"p/c/cpu.stat":            "usage_usec 5000000\nuser_usec 3000000\nsystem_usec 2000000\nnr_periods 7\nnr_throttled 2\nthrottled_usec 4000000\n",
		"p/c/cpu.max":             "50000 100000\n",
		"p/c/cpu.weight":          "20\n",
		"p/c/cpu.pressure":        psi,
		"p/c/memory.current":      "10000\n",
		"p/c/memory.max":          "20000\n",
		"p/c/memory.high":         "max\n",
		"p/c/memory.peak":         "15000\n",
		"p/c/memory.swap.current": "300\n",
		"p/c/memory.swap.max":     "1000\n",
		"p/c/memory.stat":         "anon 4000\nfile 5000\nkernel 600\nfile_mapped 70\nactive_file 2000\ninactive_file 3000\npgfault 80\npgmajfault 9\n",
		"p/c/memory.events":       "low 0\nhigh 6\nmax 11\noom 3\noom_kill 2\n",
		"p/c/memory.pressure":     psi,
		"p/c/io.pressure":         psi,
		"p/c/io.stat":             "254:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n8:16 rbytes=512 wbytes=0 rios=1 wios=0\n",
		"p/c/pids.current":        "5\n",
		"p/c/pids.max":            "max\n",
		"p/c/cgroup.procs":        "4194301\n4194302\n",
		"p/c/below/cgroup.procs":  "4194303\n",
	}
}

// filesV1 is the same container as version 1 shows it.
func filesV1() map[string]string {
	return map[string]string{
		"cpuacct/p/c/cpuacct.usage":              "5000000000\n",
		"cpuacct/p/c/cpuacct.stat":               "user 300\nsystem 200\n",
		"cpu/p/c/cpu.stat":                       "nr_periods 7\nnr_throttled 2\nthrottled_time 4000000000\n",
		"cpu/p/c/cpu.cfs_period_us":              "100000\n",
		"cpu/p/c/cpu.cfs_quota_us":               "50000\n",
		"cpu/p/c/cpu.shares":                     "500\n",
		"memory/p/c/memory.usage_in_bytes":       "10000\n",
		"memory/p/c/memory.limit_in_bytes":       "20000\n",
		"memory/p/c/memory.soft_limit_in_bytes":  "9223372036854771712\n",
		"memory/p/c/memory.memsw.limit_in_bytes": "21000\n",
		"memory/p/c/memory.max_usage_in_bytes":   "15000\n",
		"memory/p/c/memory.failcnt":              "11\n",
		"memory/p/c/memory.oom_control":          "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
		"memory/p/c/memory.stat": "rss 1\ncache 1\ninactive_file 1\nhierarchical_memory_limit 20000\nhierarchical_memsw_limit 21000\n" +
			"total_rss 4000\ntotal_cache 5000\ntotal_mapped_file 70\ntotal_swap 300\ntotal_active_file 2000\ntotal_inactive_file 3000\ntotal_pgfault 80\ntotal_pgmajfault 9\n",
		"blkio/p/c/blkio.throttle.io_service_bytes_recursive": "254:0 Read 4096\n254:0 Write 8192\n254:0 Sync 12288\n254:0 Total 12288\n8:16 Read 512\n8:16 Write 0\nTotal 12800\n",
		"blkio/p/c/blkio.throttle.io_serviced_recursive":      "254:0 Read 1\n254:0 Write 2\n8:16 Read 1\nTotal 4\n",
		"pids/p/c/pids.current":                               "5\n",
		"pids/p/c/pids.max":                                   "max\n",
		"pids/p/c/cgroup.procs":                               "4194301\n4194302\n",
		"pids/p/c/below/cgroup.procs":                         "4194303\n",
		"unified/p/c/cpu.pressure":                            psi,
		"unified/p/c/memory.pressure":                         psi,
		"unified/p/c/io.pressure":                             psi,
	}
}

// testCollector returns one whose sampler does nothing.
func testCollector(t *testing.T, facts node.Facts) *Collector {
	c := New(Options{
		Node:             facts,
		Period:           time.Hour,
		Pods:             func() []Pod { return nil },
		Layer:            func(id.Container) (Layer, bool) { return Layer{Bytes: 4096, Inodes: 2, At: time.Unix(1, 0)}, true },
		LayersDir:        t.TempDir(),
		LayersMountpoint: "/mnt",
		Interface:        "eth0",
	})
	c.Close() // a test reads by itself what the sampler would
	return c
}

func testContainer() Container {
	return Container{ID: "c", Cgroup: "/p/c", Image: "image", Attributes: &runtimeapi.ContainerAttributes{
		Id: "c", Metadata: &runtimeapi.ContainerMetadata{Name: "main"},
	}, StartedAt: time.Unix(100, 0)}
}

// both runs a test on version 1 and on version 2, with the same container.
func both(t *testing.T, test func(t *testing.T, dir string, c *Collector)) {
	t.Run("version 1", func(t *testing.T) {
		dir := t.TempDir()
		write(t, dir, filesV1())
		test(t, dir, testCollector(t, factsV1(dir)))
	})
	t.Run("version 2", func(t *testing.T) {
		dir := t.TempDir()
		write(t, dir, filesV2())
		test(t, dir, testCollector(t, factsV2(dir)))
	})
}

func equal[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func TestContainerStats(t *testing.T) {
	both(t, func(t *testing.T, _ string, c *Collector) {
		ctr := testContainer()
		for range 2 { // the second time from files that are open
			st := c.Container(&ctr)
			equal(t, "id", st.GetAttributes().GetId(), "c")
			equal(t, "CPU", st.GetCpu().GetUsageCoreNanoSeconds().GetValue(), 5_000_000_000)
			m := st.GetMemory()
			equal(t, "usage", m.GetUsageBytes().GetValue(), 10000)
			equal(t, "working set", m.GetWorkingSetBytes().GetValue(), 7000)
			equal(t, "available", m.GetAvailableBytes().GetValue(), 13000)
			equal(t, "rss", m.GetRssBytes().GetValue(), 4000)
			equal(t, "faults", m.GetPageFaults().GetValue(), 80)
			equal(t, "major faults", m.GetMajorPageFaults().GetValue(), 9)
			equal(t, "swap", st.GetSwap().GetSwapUsageBytes().GetValue(), 300)
			equal(t, "available swap", st.GetSwap().GetSwapAvailableBytes().GetValue(), 700)
			equal(t, "layer", st.GetWritableLayer().GetUsedBytes().GetValue(), 4096)
			equal(t, "layer's mount point", st.GetWritableLayer().GetFsId().GetMountpoint(), "/mnt")
			for what, p := range map[string]*runtimeapi.PsiStats{"CPU": st.GetCpu().GetPsi(), "memory": m.GetPsi(), "I/O": st.GetIo().GetPsi()} {
				equal(t, what+" waiting", p.GetSome().GetTotal(), 3_000_000_000)
				equal(t, what+" stalled", p.GetFull().GetTotal(), 1_000_001_000)
				equal(t, what+" avg10", p.GetSome().GetAvg10(), 1.5)
				equal(t, what+" avg60", p.GetSome().GetAvg60(), 0.25)
			}
		}
	})
}

// TestFewerFiles: no limit, no PSI, no swap accounting, no controller.
func TestFewerFiles(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{
		"p/c/cpu.stat": "usage_usec 1\n", "p/c/memory.current": "5\n", "p/c/memory.max": "max\n", "p/c/memory.stat": "inactive_file 9\n",
	})
	ctr := testContainer()
	st := testCollector(t, factsV2(dir)).Container(&ctr)
	if st.Cpu == nil || st.Cpu.Psi != nil || st.Io != nil || st.Memory.AvailableBytes != nil || st.Swap.SwapAvailableBytes != nil {
		t.Errorf("got %v", st)
	}
	equal(t, "working set of less than the inactive files", st.GetMemory().GetWorkingSetBytes().GetValue(), 0)

	facts := factsV1(t.TempDir())
	facts.CgroupV1 = map[string]string{"cpuacct": facts.CgroupV1["cpuacct"]}
	write(t, facts.CgroupV1["cpuacct"], map[string]string{"p/c/cpuacct.usage": "7\n"})
	st = testCollector(t, facts).Container(&ctr)
	if st.Memory != nil || st.GetCpu().GetUsageCoreNanoSeconds().GetValue() != 7 {
		t.Errorf("without a memory controller: %v", st)
	}
}

// TestGone: what has no cgroup is left out of lists and keeps its place out.
func TestGone(t *testing.T) {
	both(t, func(t *testing.T, dir string, c *Collector) {
		gone := testContainer()
		gone.ID, gone.Cgroup = "gone", "/p/gone"
		list := c.Containers([]Container{gone, testContainer(), gone})
		if len(list) != 1 || list[0].GetAttributes().GetId() != "c" {
			t.Errorf("list: %v", list)
		}
		if st := c.Container(&gone); st.Cpu != nil || st.Memory != nil || st.WritableLayer == nil {
			t.Errorf("one that is gone: %v", st)
		}
		exited := testContainer()
		exited.Exited = true
		if st := c.Container(&exited); st.Cpu != nil || st.WritableLayer == nil {
			t.Errorf("one that has exited while its cgroup is there: %v", st)
		}
		if got := c.Metrics([]Pod{{ID: "p", Cgroup: "/nowhere"}}); len(got) != 0 {
			t.Errorf("metrics of a pod that is gone: %v", got)
		}
	})
}

// decoded is what a client gets of an answer.
func decoded(t *testing.T, list []*runtimeapi.PodSandboxMetrics) []*runtimeapi.PodSandboxMetrics {
	t.Helper()
	text, err := proto.Marshal(&runtimeapi.ListPodSandboxMetricsResponse{PodMetrics: list})
	if err != nil {
		t.Fatal(err)
	}
	got := &runtimeapi.ListPodSandboxMetricsResponse{}
	if err := proto.Unmarshal(text, got); err != nil {
		t.Fatal(err)
	}
	for _, p := range got.PodMetrics {
		if unknown := p.ProtoReflect().GetUnknown(); len(unknown) > 0 {
			t.Errorf("%d bytes that are no fields", len(unknown))
		}
	}
	return got.PodMetrics
}

// TestProcesses: the count is that of the lists where tasks and containers are
// not as many, and needs no list where they are.
func TestProcesses(t *testing.T) {
	both(t, func(t *testing.T, dir string, c *Collector) {
		pod := Pod{ID: "p", Cgroup: "/p", Parts: []string{"/p/pause", "/p/monitor"}, Containers: []Container{testContainer()}}
		count := func() uint64 { return c.processes(&pod, &scratch{}).GetProcessCount().GetValue() }
		inPids := func(name string) string {
			return strings.TrimPrefix(c.sources[procs].root+"/"+name, dir+"/")
		}
		write(t, dir, map[string]string{
			inPids("p/pids.current"):       "7\n",
			inPids("p/pause/cgroup.procs"): "1\n",
			inPids("p/c/cgroup.procs"):     "10\n11\n",
		})
		equal(t, "processes of 7 tasks", count(), uint64(4))
		places := "2\n" // the monitor is in none on version 1
		if c.opts.Node.CgroupV2 {
			places = "3\n"
		}
		write(t, dir, map[string]string{inPids("p/pids.current"): places})
		equal(t, "processes of as many tasks as places", count(), uint64(2))
		pod.Shared = true
		equal(t, "processes where other pods' tasks count too", count(), uint64(4))
	})
}

// TestKeptNetwork: the directory of the namespace's files is kept, is closed by
// pruning, and is of no use once the process has ended.
func TestKeptNetwork(t *testing.T) {
	both(t, func(t *testing.T, _ string, c *Collector) {
		proc := exec.Command("sleep", "100")
		if err := proc.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = proc.Process.Kill(); _ = proc.Wait() })
		pod := Pod{ID: "p", NetNS: "/proc/self/ns/net", PausePID: proc.Process.Pid, Parts: []string{"/p/pause"}}
		look := func() bool { _, ok := c.network(&pod, &scratch{}); return ok }
		for range 2 { // the second by what the first has kept
			if !look() {
				t.Fatal("no network")
			}
		}
		equal(t, "kept files", c.fds.used.Load(), 1)
		c.prune(nil)
		equal(t, "kept files after pruning", c.fds.used.Load(), 0)
		look()
		_ = proc.Process.Kill()
		_ = proc.Wait()
		if look() {
			t.Error("the network of a process that has ended")
		}
		equal(t, "kept files of a process that has ended", c.fds.used.Load(), 0)
	})
}

// TestKeptFiles: reads use open files, within the bound, and pruning closes them.
func TestKeptFiles(t *testing.T) {
	both(t, func(t *testing.T, _ string, c *Collector) {
		ctr := testContainer()
		c.Container(&ctr)
		equal(t, "kept files", c.fds.used.Load(), int64(hotFiles-1)) // tasks are of pods
		c.prune(map[string]bool{"/p/c": true})
		equal(t, "kept files of a cgroup that is kept", c.fds.used.Load(), int64(hotFiles-1))
		c.prune(nil)
		equal(t, "kept files after pruning", c.fds.used.Load(), 0)
		c.fds.max = 2
		if st := c.Container(&ctr); st.GetMemory().GetUsageBytes().GetValue() != 10000 || st.GetIo() == nil {
			t.Errorf("without room for files: %v", st)
		}
		equal(t, "kept files within the bound", c.fds.used.Load(), 2)
	})
}

func TestDetails(t *testing.T) {
	both(t, func(t *testing.T, _ string, c *Collector) {
		ctr := testContainer()
		d := c.sampleDetails(&ctr, &scratch{})
		if d == nil {
			t.Fatal("gone")
		}
		swap, slowed := uint64(1000), uint64(6)
		if !c.opts.Node.CgroupV2 {
			swap, slowed = 21000, 0 // of both; unknown
		}
		for _, n := range []struct {
			what      string
			got, want uint64
		}{
			{"processes", d.processes, 3}, {"threads", d.threads, 5}, {"threads max", d.threadsMax, 0},
			{"user", d.user, 3e9}, {"system", d.system, 2e9}, {"periods", d.periods, 7}, {"throttled", d.throttled, 2}, {"throttled time", d.throttledTime, 4e9},
			{"period", d.period, 100000}, {"quota", d.quota, 50000}, {"shares", d.shares, 500}, {"limit", d.limit, 20000}, {"swap limit", d.swapLimit, swap},
			{"reservation", d.reservation, 0}, {"peak", d.peak, 15000}, {"failures", d.failures, 11}, {"slowed", d.slowed, slowed}, {"OOM kills", d.oomKills, 2},
		} {
			equal(t, n.what, n.got, n.want)
		}
		want := []blockIO{{device{8, 16}, 512, 0, 1, 0}, {device{254, 0}, 4096, 8192, 1, 2}}
		if !slices.Equal(d.io, want) {
			t.Errorf("block I/O: got %v, want %v", d.io, want)
		}
		if !d.complete || !d.quotaSet {
			t.Errorf("details: %+v", d)
		}
	})
}

// TestMetricsFollowTheDescriptors: whatever is told is described, once, and
// every description can be told.
func TestMetricsFollowTheDescriptors(t *testing.T) {
	both(t, func(t *testing.T, _ string, c *Collector) {
		keys := map[string][]string{}
		for _, d := range c.Descriptors() {
			if keys[d.Name] != nil || d.Help == "" || len(d.LabelKeys) < len(commonLabels) {
				t.Errorf("descriptor %v", d)
			}
			keys[d.Name] = d.LabelKeys
		}
		ctr := testContainer()
		ctr.PID = os.Getpid()
		c.sampleFileSystem()
		c.group(ctr.Cgroup).details.Store(c.sampleDetails(&ctr, &scratch{}))
		pod := Pod{ID: "p", Cgroup: "/p", Shared: true, CreatedAt: time.Unix(1, 0), Containers: []Container{ctr},
			NetNS: "/proc/self/ns/net", PausePID: os.Getpid(), Parts: []string{"/p/pause"},
			Attributes: &runtimeapi.PodSandboxAttributes{Id: "p", Metadata: &runtimeapi.PodSandboxMetadata{Name: "pod", Namespace: "ns"}}}
		told := map[string]bool{}
		for _, p := range decoded(t, c.Metrics([]Pod{pod})) {
			for _, m := range append(p.GetMetrics(), p.GetContainerMetrics()[0].GetMetrics()...) {
				if len(m.LabelValues) != len(keys[m.Name]) || m.Value == nil {
					t.Errorf("metric %v, described with %v", m, keys[m.Name])
				}
				told[m.Name] = true
			}
			equal(t, "label values", len(p.GetContainerMetrics()), 1)
		}
		for name := range keys {
			network := len(name) > 18 && name[:18] == "container_network_" // none but lo may be there
			kernel := name == "container_memory_kernel_usage" && !c.opts.Node.CgroupV2
			if !told[name] && !network && !kernel {
				t.Errorf("%s is never told", name)
			}
		}
	})
}

func TestRate(t *testing.T) {
	start := time.Now()
	at := func(d time.Duration) time.Time { return start.Add(d) }
	var r rate
	for _, step := range []struct {
		after time.Duration
		usage uint64
		want  uint64
		ok    bool
	}{
		{0, 1000, 0, false},
		{10 * time.Millisecond, 2000, 0, false}, // too near
		{500 * time.Millisecond, 501000, 1000000, true},
		{2 * time.Second, 2001000, 1000000, true},
		{2*time.Second + time.Millisecond, 2003001, 1000500, true}, // compared with the first, not with the one just before
		{12 * time.Second, 2001000, 0, true},
		{13 * time.Second, 5, 0, false}, // it has begun anew
		{15 * time.Second, 2005, 1000, true},
	} {
		got, ok := r.add(point{at(step.after), step.usage})
		if got != step.want || ok != step.ok {
			t.Errorf("after %s: got %d, %v, want %d, %v", step.after, got, ok, step.want, step.ok)
		}
	}
}

func TestParseNetDev(t *testing.T) {
	got := parseNetDev([]byte("Inter-|   Receive  |  Transmit\n face |bytes packets|bytes packets\n" +
		"    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  eth0:10 11 12 13 0 0 0 0 20 21 22 23 0 0 0 0\n short: 1 2\nnet1.5: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n"))
	want := []netInterface{{"eth0", 10, 11, 12, 13, 20, 21, 22, 23}, {"net1.5", 1, 2, 3, 4, 9, 10, 11, 12}}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestNumber(t *testing.T) {
	for text, want := range map[string]uint64{"0": 0, " 17\n": 17, "18446744073709551615": 1<<64 - 1} {
		if n, ok := number([]byte(text)); !ok || n != want {
			t.Errorf("%q: %d, %v", text, n, ok)
		}
	}
	for _, text := range []string{"", "max", "-1", "1 2", "18446744073709551616", "99999999999999999999", "0x1"} {
		if n, ok := number([]byte(text)); ok {
			t.Errorf("%q is taken for %d", text, n)
		}
	}
}

// TestLongFile: what is longer than the buffer is read whole.
func TestLongFile(t *testing.T) {
	dir := t.TempDir()
	text := make([]byte, 100_000)
	for i := range text {
		text[i] = byte('a' + i%26)
	}
	write(t, dir, map[string]string{"long": string(text)})
	var buf []byte
	for range 2 {
		got, err := readFile(filepath.Join(dir, "long"), &buf)
		if err != nil || string(got) != string(text) {
			t.Errorf("got %d bytes, %v", len(got), err)
		}
	}
}

// TestRealProcess: this process is looked at as a container's would be.
func TestRealProcess(t *testing.T) {
	var d details
	if !d.lookAt([]int{os.Getpid(), 1 << 30}, &scratch{}) {
		t.Error("too many")
	}
	total := uint64(0)
	for _, n := range d.states {
		total += n
	}
	if d.files < 3 || total < 2 {
		t.Errorf("%d files, %d threads", d.files, total)
	}
	if n, ok := openFilesLimit(os.Getpid(), &scratch{}); !ok || n == 0 {
		t.Errorf("limit of open files: %d, %v", n, ok)
	}
	if sameNetNS("/proc/self/ns/net", os.Getpid()) != true || sameNetNS("/proc/self/ns/mnt", os.Getpid()) {
		t.Error("namespaces are confused")
	}
}

// TestSampler: it runs while it is asked, forgets what is gone, and closes all
// it holds when nobody asks any more.
func TestSampler(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, filesV2())
	ctr := testContainer()
	c := New(Options{
		Node: factsV2(dir), Period: 20 * time.Millisecond, LayersDir: dir,
		Pods:  func() []Pod { return []Pod{{ID: "p", Cgroup: "/p", Containers: []Container{ctr}}} },
		Layer: func(id.Container) (Layer, bool) { return Layer{}, false },
	})
	defer c.Close()
	gone := testContainer()
	gone.Cgroup = "/p/c/below"
	write(t, dir, map[string]string{"p/c/below/cpu.stat": "usage_usec 1\n"})
	c.Container(&gone)
	c.Metrics(nil)
	until := func(what string, done func() bool) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); !done(); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("waited too long for %s", what)
			}
		}
	}
	until("details", func() bool { c.wake(true); return c.group(ctr.Cgroup).details.Load() != nil })
	until("the end of sampling", func() bool { return c.fds.used.Load() == 0 })
	c.mu.Lock()
	equal(t, "kept cgroups", len(c.groups), 0)
	c.mu.Unlock()
}
