package integration

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/test/testenv"
)

// eachWithStats looks at what is sampled every second, so that tests need not
// wait for ten.
func eachWithStats(t *testing.T, test func(t *testing.T, env *testenv.Env)) {
	eachWith(t, testenv.Options{Config: "stats_collection_period = \"1s\"\n"}, func(t *testing.T, env *testenv.Env) {
		notForPeers(t)
		env.Pull(testenv.Busybox)
		test(t, env)
	})
}

func containerStats(t *testing.T, env *testenv.Env, id string) *runtimeapi.ContainerStats {
	t.Helper()
	resp, err := env.Runtime.ContainerStats(env.Context(), &runtimeapi.ContainerStatsRequest{ContainerId: id})
	if err != nil {
		t.Fatalf("ContainerStats: %v", err)
	}
	return resp.Stats
}

func podStats(t *testing.T, env *testenv.Env, id string) *runtimeapi.PodSandboxStats {
	t.Helper()
	resp, err := env.Runtime.PodSandboxStats(env.Context(), &runtimeapi.PodSandboxStatsRequest{PodSandboxId: id})
	if err != nil {
		t.Fatalf("PodSandboxStats: %v", err)
	}
	return resp.Stats
}

func parse(t *testing.T, text string) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// between fails the test unless low <= got <= high.
func between(t *testing.T, what string, got, low, high uint64) {
	t.Helper()
	if got < low || got > high {
		t.Errorf("%s: got %d, want %d to %d", what, got, low, high)
	}
}

// TestStatsCPU: a container that burns CPU; its counter is the cgroup's, and
// the rate is that of the counter.
func TestStatsCPU(t *testing.T) {
	eachWithStats(t, func(t *testing.T, env *testenv.Env) {
		pod, id := runIn(env, env.PodConfig("pod"), "main")
		go env.Runtime.ExecSync(env.Context(), &runtimeapi.ExecSyncRequest{ //nolint:errcheck // it ends with the container
			ContainerId: id, Cmd: []string{"sh", "-c", "while :; do :; done"}, Timeout: 60,
		})
		pid := initPID(t, id)
		counter := func() uint64 {
			if text := cgroupFile(t, pid, "cpuacct", "cpuacct.usage", "cpu.stat"); !strings.Contains(text, " ") {
				return parse(t, text)
			} else {
				return parse(t, strings.Fields(text)[1]) * 1000
			}
		}
		first := containerStats(t, env, id).GetCpu()
		env.Eventually("the CPU to be burnt", func() error {
			low := counter()
			cpu := containerStats(t, env, id).GetCpu()
			high := counter()
			used := cpu.GetUsageCoreNanoSeconds().GetValue()
			between(t, "CPU usage", used, low, high)
			if burnt := used - first.GetUsageCoreNanoSeconds().GetValue(); burnt < uint64(200*time.Millisecond) {
				return fmt.Errorf("%s were burnt", time.Duration(burnt))
			}
			if rate := cpu.GetUsageNanoCores().GetValue(); rate < 10_000_000 || rate > 16_000_000_000 {
				return fmt.Errorf("the rate is %d", rate)
			}
			return nil
		})
		p := podStats(t, env, pod)
		between(t, "CPU usage of the pod", p.GetLinux().GetCpu().GetUsageCoreNanoSeconds().GetValue(),
			p.GetLinux().GetContainers()[0].GetCpu().GetUsageCoreNanoSeconds().GetValue(), 1<<62)
	})
}

// TestStatsMemory: a container that keeps 32 MiB on a tmpfs, under a limit.
func TestStatsMemory(t *testing.T) {
	eachWithStats(t, func(t *testing.T, env *testenv.Env) {
		podConfig := env.PodConfig("pod")
		pod := env.RunPod(podConfig)
		config := env.ContainerConfig("main", "sleep 1000")
		config.Linux.Resources = &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 64 << 20}
		id := env.Run(pod, config, podConfig)
		before := containerStats(t, env, id).GetMemory()
		env.Exec(id, "dd if=/dev/zero of=/dev/shm/x bs=1M count=32")
		pid := initPID(t, id)
		m := containerStats(t, env, id).GetMemory()
		usage := parse(t, cgroupFile(t, pid, "memory", "memory.usage_in_bytes", "memory.current"))
		between(t, "memory usage", m.GetUsageBytes().GetValue(), usage-min(usage, 4<<20), usage+4<<20)
		// What its start has taken may be given back meanwhile.
		between(t, "growth of the working set", m.GetWorkingSetBytes().GetValue()-before.GetWorkingSetBytes().GetValue(), 24<<20, 40<<20)
		wantEqual(t, "available and working set", m.GetAvailableBytes().GetValue()+m.GetWorkingSetBytes().GetValue(), 64<<20)
		between(t, "page faults", m.GetPageFaults().GetValue(), 1, 1<<30)
		if m.GetRssBytes().GetValue() >= m.GetUsageBytes().GetValue() || m.GetMajorPageFaults() == nil {
			t.Errorf("memory: %v", m)
		}
		between(t, "memory usage of the pod", podStats(t, env, pod).GetLinux().GetMemory().GetUsageBytes().GetValue(), 32<<20, 80<<20)
		free := containerStats(t, env, env.Run(pod, env.ContainerConfig("unlimited", "sleep 1000"), podConfig)).GetMemory()
		if free == nil || free.AvailableBytes != nil {
			t.Errorf("available memory without a limit: %v", free)
		}
	})
}

// TestStatsWritableLayer: what a container writes to its root appears, exactly,
// in its own figures and in the sum.
func TestStatsWritableLayer(t *testing.T) {
	eachWithStats(t, func(t *testing.T, env *testenv.Env) {
		_, id := runIn(env, env.PodConfig("pod"), "main")
		layer := func() *runtimeapi.FilesystemUsage { return containerStats(t, env, id).GetWritableLayer() }
		env.Eventually("the layer to be measured", func() error {
			if layer().GetUsedBytes() == nil {
				return errors.New("it was not yet")
			}
			return nil
		})
		before := layer()
		env.Exec(id, "dd if=/dev/zero of=/written bs=64k count=48; sync")
		env.Eventually("what was written to appear", func() error {
			now := layer()
			bytes := now.GetUsedBytes().GetValue() - before.GetUsedBytes().GetValue()
			if bytes < 3<<20 || bytes > 3<<20+64<<10 || now.GetInodesUsed().GetValue() != before.GetInodesUsed().GetValue()+1 {
				return fmt.Errorf("%d bytes, %d inodes more", bytes, now.GetInodesUsed().GetValue()-before.GetInodesUsed().GetValue())
			}
			return nil
		})
		env.Eventually("the sum over all containers", func() error {
			info, err := env.Images.ImageFsInfo(env.Context(), &runtimeapi.ImageFsInfoRequest{})
			if err != nil {
				return err
			}
			all, one := info.GetContainerFilesystems()[0], layer()
			wantEqual(t, "file system of the containers", all.GetFsId().GetMountpoint(), one.GetFsId().GetMountpoint())
			wantEqual(t, "file system of the images", info.GetImageFilesystems()[0].GetFsId().GetMountpoint(), one.GetFsId().GetMountpoint())
			if all.GetUsedBytes().GetValue() != one.GetUsedBytes().GetValue() || all.GetInodesUsed().GetValue() != one.GetInodesUsed().GetValue() {
				return fmt.Errorf("all: %v, the one: %v", all, one)
			}
			return nil
		})
		if !strings.HasPrefix(env.Root, before.GetFsId().GetMountpoint()) {
			t.Errorf("mount point %q of a layer below %s", before.GetFsId().GetMountpoint(), env.Root)
		}
	})
}

// TestStatsNetwork: traffic of a pod counts on its default interface, and not
// for a pod on the node's network.
func TestStatsNetwork(t *testing.T) {
	eachWithStats(t, func(t *testing.T, env *testenv.Env) {
		podConfig := env.PodConfig("server")
		pod := env.RunPod(podConfig)
		env.Run(pod, env.ContainerConfig("main", "mkdir /www; dd if=/dev/zero of=/www/x bs=1M count=1; exec httpd -f -p 8080 -h /www"), podConfig)
		client, clientCtr := runIn(env, env.PodConfig("client"), "main")
		before := podStats(t, env, client).GetLinux().GetNetwork().GetDefaultInterface()
		wantEqual(t, "interface", before.GetName(), "eth0")
		ip := env.PodStatus(pod).GetNetwork().GetIp()
		env.Exec(clientCtr, "for i in $(seq 100); do wget -q -O /dev/null http://"+ip+":8080/x && exit 0; sleep 0.1; done; exit 1")
		after := podStats(t, env, client).GetLinux().GetNetwork()
		between(t, "bytes received", after.GetDefaultInterface().GetRxBytes().GetValue()-before.GetRxBytes().GetValue(), 1<<20, 2<<20)
		between(t, "bytes sent", podStats(t, env, pod).GetLinux().GetNetwork().GetDefaultInterface().GetTxBytes().GetValue(), 1<<20, 2<<20)
		wantEqual(t, "errors", after.GetDefaultInterface().GetTxErrors().GetValue(), 0)
		wantEqual(t, "other interfaces", len(after.GetInterfaces()), 0)
		if after.GetTimestamp() <= 0 {
			t.Error("no time stamp")
		}
		host := env.PodConfig("host")
		host.Linux.SecurityContext = &runtimeapi.LinuxSandboxSecurityContext{
			NamespaceOptions: &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE},
		}
		if n := podStats(t, env, env.RunPod(host)).GetLinux().GetNetwork(); n != nil {
			t.Errorf("network of a pod on the node's: %v", n)
		}
	})
}

// TestStatsProcesses: those of the containers and the pause container.
func TestStatsProcesses(t *testing.T) {
	eachWithStats(t, func(t *testing.T, env *testenv.Env) {
		podConfig := env.PodConfig("pod")
		pod := env.RunPod(podConfig)
		wantEqual(t, "processes of an empty pod", podStats(t, env, pod).GetLinux().GetProcess().GetProcessCount().GetValue(), 1)
		id := env.Run(pod, env.ContainerConfig("main", "for i in 1 2 3 4; do sleep 1000 & done; echo ready; wait"), podConfig)
		env.WaitLog(filepath.Join(podConfig.LogDirectory, "main.log"), "ready")
		wantEqual(t, "processes", podStats(t, env, pod).GetLinux().GetProcess().GetProcessCount().GetValue(), 6)
		env.Stop(id, 0)
		env.Eventually("the container to leave the figures", func() error {
			p := podStats(t, env, pod).GetLinux()
			if p.GetProcess().GetProcessCount().GetValue() != 1 || len(p.GetContainers()) != 0 {
				return fmt.Errorf("%v", p)
			}
			return nil
		})
	})
}

// TestStatsLists: attributes, filters, streams, and ids that nothing has.
func TestStatsLists(t *testing.T) {
	eachWithStats(t, func(t *testing.T, env *testenv.Env) {
		var pods, ctrs []string
		for _, name := range []string{"a", "b"} {
			podConfig := env.PodConfig(name)
			podConfig.Labels, podConfig.Annotations = map[string]string{"pod": name, "all": "yes"}, map[string]string{"note": name}
			pod := env.RunPod(podConfig)
			config := env.ContainerConfig("main", "sleep 1000")
			config.Labels, config.Annotations = map[string]string{"of": name, "all": "yes"}, map[string]string{"note": name}
			pods, ctrs = append(pods, pod), append(ctrs, env.Run(pod, config, podConfig))
		}
		exited := env.Run(pods[0], env.ContainerConfig("exited", "true"), env.PodConfig("a"))
		env.WaitExit(exited)
		testContainerFilters(t, env, pods, ctrs)
		testPodFilters(t, env, pods)
		if c := containerStats(t, env, ctrs[1]); c.GetAttributes().GetAnnotations()["note"] != "b" || c.GetAttributes().GetLabels()["of"] != "b" ||
			c.GetAttributes().GetMetadata().GetName() != "main" || c.GetCpu().GetTimestamp() <= 0 || c.GetMemory().GetTimestamp() <= 0 || c.GetSwap() == nil {
			t.Errorf("stats: %v", c)
		}
		if c := containerStats(t, env, exited); c.GetAttributes().GetId() != exited || c.GetCpu() != nil {
			t.Errorf("stats of an exited container: %v", c)
		}
		env.StopPod(pods[0])
		if p := podStats(t, env, pods[0]); p.GetAttributes().GetId() != pods[0] || p.GetLinux().GetCpu() != nil {
			t.Errorf("stats of a stopped pod: %v", p)
		}
		for _, id := range []string{strings.Repeat("f", 64), "nonsense"} {
			_, err := env.Runtime.ContainerStats(env.Context(), &runtimeapi.ContainerStatsRequest{ContainerId: id})
			wantCode(t, "ContainerStats", err, codes.NotFound)
			_, err = env.Runtime.PodSandboxStats(env.Context(), &runtimeapi.PodSandboxStatsRequest{PodSandboxId: id})
			wantCode(t, "PodSandboxStats", err, codes.NotFound)
		}
		_, err := env.Runtime.ContainerStats(env.Context(), &runtimeapi.ContainerStatsRequest{})
		wantCode(t, "ContainerStats without an id", err, codes.InvalidArgument)
		_, err = env.Runtime.PodSandboxStats(env.Context(), &runtimeapi.PodSandboxStatsRequest{})
		wantCode(t, "PodSandboxStats without an id", err, codes.InvalidArgument)
	})
}

func testContainerFilters(t *testing.T, env *testenv.Env, pods, ctrs []string) {
	for name, tt := range map[string]struct {
		filter *runtimeapi.ContainerStatsFilter
		want   []string
	}{
		"nil":             {nil, ctrs},
		"empty":           {&runtimeapi.ContainerStatsFilter{}, ctrs},
		"id":              {&runtimeapi.ContainerStatsFilter{Id: ctrs[1]}, ctrs[1:]},
		"beginning":       {&runtimeapi.ContainerStatsFilter{Id: ctrs[1][:16]}, ctrs[1:]},
		"pod":             {&runtimeapi.ContainerStatsFilter{PodSandboxId: pods[0]}, ctrs[:1]},
		"id of another":   {&runtimeapi.ContainerStatsFilter{Id: ctrs[0], PodSandboxId: pods[1]}, nil},
		"label":           {&runtimeapi.ContainerStatsFilter{LabelSelector: map[string]string{"of": "a", "all": "yes"}}, ctrs[:1]},
		"label of no one": {&runtimeapi.ContainerStatsFilter{LabelSelector: map[string]string{"of": "c"}}, nil},
		"unknown id":      {&runtimeapi.ContainerStatsFilter{Id: "nonsense"}, nil},
	} {
		resp, err := env.Runtime.ListContainerStats(env.Context(), &runtimeapi.ListContainerStatsRequest{Filter: tt.filter})
		wantCode(t, name, err, codes.OK)
		var got []string
		for _, c := range resp.GetStats() {
			got = append(got, c.GetAttributes().GetId())
		}
		wantEqual(t, name, fmt.Sprint(got), fmt.Sprint(tt.want))
		stream, err := env.Runtime.StreamContainerStats(env.Context(), &runtimeapi.StreamContainerStatsRequest{Filter: tt.filter})
		wantCode(t, name, err, codes.OK)
		got = nil
		for _, m := range receive(t, stream) {
			for _, c := range m.GetContainerStats() {
				got = append(got, c.GetAttributes().GetId())
			}
		}
		wantEqual(t, name+", streamed", fmt.Sprint(got), fmt.Sprint(tt.want))
	}
}

func testPodFilters(t *testing.T, env *testenv.Env, pods []string) {
	for name, tt := range map[string]struct {
		filter *runtimeapi.PodSandboxStatsFilter
		want   []string
	}{
		"nil":        {nil, pods},
		"id":         {&runtimeapi.PodSandboxStatsFilter{Id: pods[1]}, pods[1:]},
		"label":      {&runtimeapi.PodSandboxStatsFilter{LabelSelector: map[string]string{"pod": "a"}}, pods[:1]},
		"both":       {&runtimeapi.PodSandboxStatsFilter{Id: pods[1], LabelSelector: map[string]string{"pod": "a"}}, nil},
		"unknown id": {&runtimeapi.PodSandboxStatsFilter{Id: "nonsense"}, nil},
	} {
		resp, err := env.Runtime.ListPodSandboxStats(env.Context(), &runtimeapi.ListPodSandboxStatsRequest{Filter: tt.filter})
		wantCode(t, name, err, codes.OK)
		var got []string
		for _, p := range resp.GetStats() {
			got = append(got, p.GetAttributes().GetId())
			if len(p.GetLinux().GetContainers()) != 1 || p.GetAttributes().GetAnnotations()["note"] == "" {
				t.Errorf("%s: %v", name, p)
			}
		}
		wantEqual(t, name, fmt.Sprint(got), fmt.Sprint(tt.want))
		stream, err := env.Runtime.StreamPodSandboxStats(env.Context(), &runtimeapi.StreamPodSandboxStatsRequest{Filter: tt.filter})
		wantCode(t, name, err, codes.OK)
		got = nil
		for _, m := range receive(t, stream) {
			for _, p := range m.GetPodSandboxStats() {
				got = append(got, p.GetAttributes().GetId())
			}
		}
		wantEqual(t, name+", streamed", fmt.Sprint(got), fmt.Sprint(tt.want))
	}
}

// receive reads a stream to its end.
func receive[T any](t *testing.T, stream grpc.ServerStreamingClient[T]) []*T {
	t.Helper()
	var all []*T
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Errorf("receive: %v", err)
			return all
		}
		all = append(all, m)
	}
}

// TestStatsSharedParent: of two pods with one cgroup parent each has its own
// figures.
func TestStatsSharedParent(t *testing.T) {
	eachWithStats(t, func(t *testing.T, env *testenv.Env) {
		var pods []string
		for _, name := range []string{"small", "large"} {
			config := env.PodConfig(name)
			config.Linux.CgroupParent = env.Cgroup("shared")
			pod, id := runIn(env, config, "main")
			pods = append(pods, pod)
			if name == "large" {
				env.Exec(id, "dd if=/dev/zero of=/dev/shm/x bs=1M count=32")
			}
		}
		used := func(pod string) uint64 {
			return podStats(t, env, pod).GetLinux().GetMemory().GetUsageBytes().GetValue()
		}
		between(t, "memory of the large pod", used(pods[1]), 32<<20, 64<<20)
		between(t, "memory of the small pod", used(pods[0]), 1, 24<<20)
		env.RemoveAll()
		env.RemoveCgroup(env.Cgroup("shared"))
	})
}

// TestStatsMeanwhile: lists never fail while pods come and go, and end soon.
func TestStatsMeanwhile(t *testing.T) {
	eachWithStats(t, func(t *testing.T, env *testenv.Env) {
		ctx, cancel := context.WithCancel(env.Context())
		var lists sync.WaitGroup
		for _, list := range []func() error{
			func() error {
				_, err := env.Runtime.ListContainerStats(env.Context(), &runtimeapi.ListContainerStatsRequest{})
				return err
			},
			func() error {
				_, err := env.Runtime.ListPodSandboxStats(env.Context(), &runtimeapi.ListPodSandboxStatsRequest{})
				return err
			},
			func() error {
				_, err := env.Runtime.ListPodSandboxMetrics(env.Context(), &runtimeapi.ListPodSandboxMetricsRequest{})
				return err
			},
		} {
			lists.Go(func() {
				for ctx.Err() == nil {
					prompt(t, "a list", 20*time.Second, func() { wantCode(t, "a list meanwhile", list(), codes.OK) })
				}
			})
		}
		var pods sync.WaitGroup
		for i := range 3 {
			pods.Go(func() {
				for j := range 3 {
					pod, _ := runIn(env, env.PodConfig(fmt.Sprintf("pod%d-%d", i, j)), "main")
					env.RemovePod(pod)
				}
			})
		}
		pods.Wait()
		cancel()
		lists.Wait()
	})
}

// TestMetrics: every metric is described, with as many labels as it has values;
// none is told twice; and the figures are those of the container.
func TestMetrics(t *testing.T) {
	eachWithStats(t, func(t *testing.T, env *testenv.Env) {
		podConfig := env.PodConfig("pod")
		pod := env.RunPod(podConfig)
		config := env.ContainerConfig("main", "sleep 1000 & sleep 1000 & echo ready; wait")
		config.Linux.Resources = &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 64 << 20, CpuQuota: 50000, CpuPeriod: 100000, CpuShares: 512}
		id := env.Run(pod, config, podConfig)
		env.WaitLog(filepath.Join(podConfig.LogDirectory, "main.log"), "ready")
		described, err := env.Runtime.ListMetricDescriptors(env.Context(), &runtimeapi.ListMetricDescriptorsRequest{})
		wantCode(t, "ListMetricDescriptors", err, codes.OK)
		keys := map[string][]string{}
		for _, d := range described.GetDescriptors() {
			if keys[d.GetName()] != nil || d.GetHelp() == "" {
				t.Errorf("descriptor %v", d)
			}
			keys[d.GetName()] = d.GetLabelKeys()
		}
		var ctr map[string]uint64
		env.Eventually("the sampled metrics", func() error {
			resp, err := env.Runtime.ListPodSandboxMetrics(env.Context(), &runtimeapi.ListPodSandboxMetricsRequest{})
			if err != nil || len(resp.GetPodMetrics()) != 1 {
				return fmt.Errorf("%v, %d pods", err, len(resp.GetPodMetrics()))
			}
			p := resp.GetPodMetrics()[0]
			wantEqual(t, "pod", p.GetPodSandboxId(), pod)
			wantEqual(t, "container", p.GetContainerMetrics()[0].GetContainerId(), id)
			podValues := metricValues(t, keys, p.GetMetrics())
			if _, ok := podValues["container_network_receive_bytes_total|eth0"]; !ok {
				t.Errorf("no network: %v", podValues)
			}
			ctr = metricValues(t, keys, p.GetContainerMetrics()[0].GetMetrics())
			if _, ok := ctr["container_processes"]; !ok || ctr["container_fs_limit_bytes"] == 0 && len(ctr) < 30 {
				return errors.New("not there yet")
			}
			if ctr["container_tasks_state|sleeping"] != 3 { // right after their start they run
				return fmt.Errorf("%d tasks sleep", ctr["container_tasks_state|sleeping"])
			}
			return nil
		})
		for name, want := range map[string]uint64{
			"container_processes": 3, "container_threads": 3, "container_sockets": 0,
			"container_spec_memory_limit_bytes": 64 << 20, "container_spec_cpu_period": 100000, "container_spec_cpu_quota": 50000, "container_oom_events_total": 0,
		} {
			if got, ok := ctr[name]; !ok || got != want {
				t.Errorf("%s: got %d (%v), want %d", name, got, ok, want)
			}
		}
		between(t, "open files", ctr["container_file_descriptors"], 9, 15)
		between(t, "start time", ctr["container_start_time_seconds"], uint64(time.Now().Add(-time.Minute).Unix()), uint64(time.Now().Unix()))
		between(t, "working set", ctr["container_memory_working_set_bytes"], 1, 64<<20)
		stream, err := env.Runtime.StreamPodSandboxMetrics(env.Context(), &runtimeapi.StreamPodSandboxMetricsRequest{})
		wantCode(t, "StreamPodSandboxMetrics", err, codes.OK)
		streamed := receive(t, stream)
		if len(streamed) != 1 || len(streamed[0].GetPodSandboxMetrics()) != 1 || len(metricValues(t, keys, streamed[0].GetPodSandboxMetrics()[0].GetContainerMetrics()[0].GetMetrics())) < len(ctr) {
			t.Errorf("streamed: %v", streamed)
		}
	})
}

// metricValues returns each value by its name and the values of the labels that
// not every metric has.
func metricValues(t *testing.T, keys map[string][]string, metrics []*runtimeapi.Metric) map[string]uint64 {
	t.Helper()
	values := map[string]uint64{}
	for _, m := range metrics {
		labels := keys[m.GetName()]
		if labels == nil || len(labels) != len(m.GetLabelValues()) {
			t.Errorf("metric %v, described with %v", m, labels)
			continue
		}
		own := slices.Index(labels, "pod") + 1
		name := strings.Join(append([]string{m.GetName()}, m.GetLabelValues()[own:]...), "|")
		if _, twice := values[name]; twice {
			t.Errorf("%s is told twice", name)
		}
		values[name] = m.GetValue().GetValue()
	}
	return values
}
