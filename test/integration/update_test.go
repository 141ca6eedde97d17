package integration

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/test/testenv"
)

type resources = runtimeapi.LinuxContainerResources

func update(env *testenv.Env, id string, r *resources) error {
	_, err := env.Runtime.UpdateContainerResources(env.Context(), &runtimeapi.UpdateContainerResourcesRequest{ContainerId: id, Linux: r})
	return err
}

func resourcesOf(env *testenv.Env, id string) *resources {
	return env.Status(id).GetResources().GetLinux()
}

// limitsOf reads what the kernel says of a container's limits.
func limitsOf(t *testing.T, pid int) string {
	t.Helper()
	quota := cgroupFile(t, pid, "cpu", "cpu.cfs_quota_us", "cpu.max")
	if !strings.Contains(quota, " ") {
		quota += " " + cgroupFile(t, pid, "cpu", "cpu.cfs_period_us", "")
	}
	return fmt.Sprintf("memory %s, swap %s, cpu %s, set %s",
		cgroupFile(t, pid, "memory", "memory.limit_in_bytes", "memory.max"),
		cgroupFile(t, pid, "memory", "memory.memsw.limit_in_bytes", "memory.swap.max"),
		quota, cgroupFile(t, pid, "cpuset", "cpuset.cpus", "cpuset.cpus"))
}

// TestUpdate: limits of a created and of a running container change in the
// kernel and in its status; what an update does not name stays.
func TestUpdate(t *testing.T) {
	withPod(t, func(t *testing.T, env *testenv.Env, pod string, podConfig *runtimeapi.PodSandboxConfig) {
		config := env.ContainerConfig("main", "sleep 1000")
		config.Linux.Resources = &resources{MemoryLimitInBytes: 64 << 20, CpuQuota: 50000, CpuPeriod: 100000, CpuShares: 512, OomScoreAdj: 500}
		id := env.Create(pod, config, podConfig)
		pid := initPID(t, id)
		wantCode(t, "update of a created container", update(env, id, &resources{MemoryLimitInBytes: 128 << 20, CpusetCpus: "0"}), codes.OK)
		wantContains(t, "limits", limitsOf(t, pid), "memory 134217728,")
		wantContains(t, "limits", limitsOf(t, pid), "cpu 50000 100000, set 0")
		env.Start(id)
		wantCode(t, "update of a running container", update(env, id, &resources{
			CpuQuota: 20000, CpuShares: 2048, MemoryLimitInBytes: 32 << 20, MemorySwapLimitInBytes: 32 << 20, OomScoreAdj: 600,
			HugepageLimits: []*runtimeapi.HugepageLimit{{PageSize: "2MB", Limit: 4 << 20}},
		}), codes.OK)
		wantContains(t, "limits", limitsOf(t, pid), "memory 33554432,")
		wantContains(t, "limits", limitsOf(t, pid), "cpu 20000 100000, set 0")
		if shares := cgroupFile(t, pid, "cpu", "cpu.shares", "cpu.weight"); shares != "2048" && len(shares) > 3 {
			t.Errorf("CPU shares: got %q", shares)
		}
		wantEqual(t, "huge pages", cgroupFile(t, pid, "hugetlb", "hugetlb.2MB.limit_in_bytes", "hugetlb.2MB.max"), "4194304")
		if !testenv.Peer() {
			wantEqual(t, "OOM score", readProc(t, pid, "oom_score_adj"), "600\n")
			if env.RuntimeName == "crun" { // runc gives commands the score that it created the container with
				wantEqual(t, "OOM score of a command", env.Exec(id, "cat /proc/self/oom_score_adj"), "600\n")
			}
		}
		want := &resources{
			MemoryLimitInBytes: 32 << 20, MemorySwapLimitInBytes: 32 << 20, CpuQuota: 20000, CpuPeriod: 100000, CpuShares: 2048,
			OomScoreAdj: 600, CpusetCpus: "0", HugepageLimits: []*runtimeapi.HugepageLimit{{PageSize: "2MB", Limit: 4 << 20}},
		}
		if got := resourcesOf(env, id); !proto.Equal(got, want) && !testenv.Peer() {
			t.Errorf("status:\ngot  %v\nwant %v", got, want)
		}
		wantEqual(t, "what the container sees", env.Exec(id, "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max"), "33554432\n")
		wantCode(t, "no limits", update(env, id, &resources{CpuQuota: -1, MemoryLimitInBytes: -1, MemorySwapLimitInBytes: -1}), codes.OK)
		if got := limitsOf(t, pid); strings.Contains(got, "memory 33554432") || strings.Contains(got, "cpu 20000") {
			t.Errorf("without limits: %s", got)
		}
	})
}

// TestUpdateRefused: an update that can't be made changes nothing.
func TestUpdateRefused(t *testing.T) {
	withPod(t, func(t *testing.T, env *testenv.Env, pod string, podConfig *runtimeapi.PodSandboxConfig) {
		notForPeers(t)
		config := env.ContainerConfig("main", "dd if=/dev/zero of=/dev/shm/x bs=1M count=20 2>/dev/null; echo full; sleep 1000")
		config.Linux.Resources = &resources{MemoryLimitInBytes: 64 << 20, CpuQuota: 50000, CpuPeriod: 100000, CpuShares: 512}
		id := env.Run(pod, config, podConfig)
		env.WaitLog(podConfig.LogDirectory+"/main.log", "full")
		pid := initPID(t, id)
		limits, status := limitsOf(t, pid), resourcesOf(env, id)
		for name, c := range map[string]struct {
			r    *resources
			code codes.Code
		}{
			"memory below what is used": {&resources{MemoryLimitInBytes: 4 << 20, CpuShares: 100}, codes.FailedPrecondition},
			"CPUs that are not there":   {&resources{MemoryLimitInBytes: 70 << 20, CpusetCpus: "0-63"}, codes.InvalidArgument},
			"negative memory":           {&resources{MemoryLimitInBytes: -7}, codes.InvalidArgument},
			"shares out of range":       {&resources{CpuShares: 1 << 20}, codes.InvalidArgument},
			"less swap than memory":     {&resources{MemorySwapLimitInBytes: 1 << 20}, codes.InvalidArgument},
			"a page size":               {&resources{HugepageLimits: []*runtimeapi.HugepageLimit{{PageSize: "3MB", Limit: 1}}}, codes.InvalidArgument},
			"a path":                    {&resources{Unified: map[string]string{"../memory.max": "1"}}, codes.InvalidArgument},
		} {
			prompt(t, name, 20*time.Second, func() { wantCode(t, name, update(env, id, c.r), c.code) })
			wantEqual(t, "limits after "+name, limitsOf(t, pid), limits)
			if got := resourcesOf(env, id); !proto.Equal(got, status) {
				t.Errorf("status after %s: got %v, want %v", name, got, status)
			}
		}
		_, err := env.Runtime.UpdateContainerResources(env.Context(), &runtimeapi.UpdateContainerResourcesRequest{ContainerId: id})
		wantCode(t, "nothing", err, codes.InvalidArgument)
		_, err = env.Runtime.UpdateContainerResources(env.Context(), &runtimeapi.UpdateContainerResourcesRequest{ContainerId: id, Windows: &runtimeapi.WindowsContainerResources{}})
		wantCode(t, "Windows", err, codes.InvalidArgument)
		_, err = env.Runtime.UpdateContainerResources(env.Context(), &runtimeapi.UpdateContainerResourcesRequest{ContainerId: id, Annotations: map[string]string{"a": "b"}})
		wantCode(t, "annotations alone", err, codes.OK)
		wantCode(t, "an unknown container", update(env, strings.Repeat("f", 64), &resources{CpuShares: 3}), codes.NotFound)
		env.Stop(id, 0)
		wantCode(t, "an exited container", update(env, id, &resources{CpuShares: 300}), codes.FailedPrecondition)
	})
}

// TestUpdatesAtOnce: whatever the order, record and kernel agree afterwards.
func TestUpdatesAtOnce(t *testing.T) {
	withContainer(t, func(t *testing.T, env *testenv.Env, id string) {
		var wg sync.WaitGroup
		for i := range int64(24) {
			wg.Go(func() {
				r := &resources{CpuQuota: 10000 + 1000*i, CpuPeriod: 100000, MemoryLimitInBytes: (64 + i) << 20}
				wantCode(t, "one of many updates", update(env, id, r), codes.OK)
			})
		}
		wg.Wait()
		agree(t, env, id)
	})
}

// agree fails the test unless the status says what the kernel says.
func agree(t *testing.T, env *testenv.Env, id string) {
	t.Helper()
	pid := initPID(t, id)
	env.Eventually("status and cgroup to agree", func() error {
		r, kernel := resourcesOf(env, id), limitsOf(t, pid)
		if r.GetCpuQuota() == 0 || r.GetMemoryLimitInBytes() == 0 {
			return fmt.Errorf("the status has no limits: %v", r)
		}
		if !strings.Contains(kernel, fmt.Sprintf("memory %d,", r.GetMemoryLimitInBytes())) ||
			!strings.Contains(kernel, fmt.Sprintf("cpu %d %d,", r.GetCpuQuota(), r.GetCpuPeriod())) {
			return fmt.Errorf("the status has %v, the kernel %s", r, kernel)
		}
		return nil
	})
}

// TestKilledWhileUpdating: the daemon is killed again and again in the middle of
// updates; then record and cgroup agree, and no update is left pending.
func TestKilledWhileUpdating(t *testing.T) {
	withContainer(t, func(t *testing.T, env *testenv.Env, id string) {
		notForPeers(t)
		wantCode(t, "first update", update(env, id, &resources{CpuQuota: 10000, CpuPeriod: 100000, MemoryLimitInBytes: 64 << 20}), codes.OK)
		for round := range 8 {
			stop := make(chan struct{})
			var done sync.WaitGroup
			for writer := range int64(2) {
				done.Go(func() {
					for i := int64(0); ; i++ {
						select {
						case <-stop:
							return
						default:
							_ = update(env, id, &resources{
								CpuQuota: 10000 + 100*(i%500), CpuPeriod: 50000 * (1 + i%3), MemoryLimitInBytes: (64 + i%32 + 64*writer) << 20,
							})
						}
					}
				})
			}
			time.Sleep(time.Duration(20+17*round) * time.Millisecond) // where in an update the kill comes is left to chance
			env.Kill9()
			close(stop)
			env.StartDaemon()
			done.Wait()
			agree(t, env, id)
			env.Eventually("no pending update", func() error { return noPending(env, id) })
		}
		wantCode(t, "last update", update(env, id, &resources{CpuQuota: 20000}), codes.OK)
		agree(t, env, id)
	})
}

func noPending(env *testenv.Env, id string) error {
	text, err := os.ReadFile(env.RunRoot + "/pods/" + podOf(env, id) + "/containers/" + id + "/resources.json")
	if err == nil && strings.Contains(string(text), `"pending"`) {
		err = fmt.Errorf("the record has one: %s", text)
	}
	return err
}

func podOf(env *testenv.Env, id string) string {
	list, err := env.Runtime.ListContainers(env.Context(), &runtimeapi.ListContainersRequest{Filter: &runtimeapi.ContainerFilter{Id: id}})
	if err != nil || len(list.Containers) != 1 {
		return ""
	}
	return list.Containers[0].PodSandboxId
}

// TestUpdatePod: a pod's overhead and resources are kept, and its cgroup, the
// kubelet's, is left alone.
func TestUpdatePod(t *testing.T) {
	each(t, func(t *testing.T, env *testenv.Env) {
		notForPeers(t)
		config := env.PodConfig("pod")
		config.Linux.Overhead = &resources{MemoryLimitInBytes: 11111}
		config.Linux.Resources = &resources{MemoryLimitInBytes: 22222}
		pod := env.RunPod(config)
		pid := initPID(t, pod)
		before := limitsOf(t, pid)
		send := func(overhead, r *resources) error {
			_, err := env.Runtime.UpdatePodSandboxResources(env.Context(), &runtimeapi.UpdatePodSandboxResourcesRequest{PodSandboxId: pod, Overhead: overhead, Resources: r})
			return err
		}
		wantContains(t, "info", podInfo(t, env, pod), `"resources":{"overhead":{"memoryLimitInBytes":"11111"},"resources":{"memoryLimitInBytes":"22222"}}`)
		wantCode(t, "update", send(nil, &resources{MemoryLimitInBytes: 33333, CpuShares: 2}), codes.OK)
		wantCode(t, "nonsense", send(&resources{CpuShares: -1}, nil), codes.InvalidArgument)
		env.Kill9()
		env.StartDaemon()
		info := strings.ReplaceAll(podInfo(t, env, pod), " ", "")
		wantContains(t, "info", info, `"overhead":{"memoryLimitInBytes":"11111"},"resources":{"cpuShares":"2","memoryLimitInBytes":"33333"}`)
		wantEqual(t, "limits", limitsOf(t, pid), before)
		wantEqual(t, "the same pod by its identity", env.RunPod(config), pod)
		env.StopPod(pod)
		wantCode(t, "a stopped pod", send(nil, &resources{CpuShares: 3}), codes.FailedPrecondition)
		env.RemovePod(pod)
		wantCode(t, "a removed pod", send(nil, &resources{CpuShares: 3}), codes.NotFound)
	})
}

func podInfo(t *testing.T, env *testenv.Env, pod string) string {
	t.Helper()
	resp, err := env.Runtime.PodSandboxStatus(env.Context(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: pod, Verbose: true})
	if err != nil {
		t.Fatal(err)
	}
	return resp.Info["info"]
}
