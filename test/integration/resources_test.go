package integration

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/test/testenv"
)

// TestResources: limits arrive in the container's cgroup.
func TestResources(t *testing.T) {
	withPod(t, func(t *testing.T, env *testenv.Env, pod string, podConfig *runtimeapi.PodSandboxConfig) {
		config := env.ContainerConfig("main", "sleep 1000")
		config.Linux.Resources = &runtimeapi.LinuxContainerResources{
			MemoryLimitInBytes: 64 << 20, CpuQuota: 50000, CpuPeriod: 100000, CpuShares: 512, CpusetCpus: "0", OomScoreAdj: 500,
		}
		id := env.Run(pod, config, podConfig)
		pid := initPID(t, id)
		wantEqual(t, "memory limit", cgroupFile(t, pid, "memory", "memory.limit_in_bytes", "memory.max"), "67108864")
		quota := cgroupFile(t, pid, "cpu", "cpu.cfs_quota_us", "cpu.max")
		if quota != "50000" && quota != "50000 100000" {
			t.Errorf("CPU quota: got %q", quota)
		}
		shares := cgroupFile(t, pid, "cpu", "cpu.shares", "cpu.weight")
		if shares != "512" && (len(shares) > 3 || shares == "100") { // crun and runc map shares to weights differently
			t.Errorf("CPU shares: got %q", shares)
		}
		wantEqual(t, "CPU set", cgroupFile(t, pid, "cpuset", "cpuset.cpus", "cpuset.cpus"), "0")
		wantEqual(t, "OOM score", readProc(t, pid, "oom_score_adj"), "500\n")
	})
}

// TestResourcesV2: what only cgroup v2 limits and counts. The limits arrive in the
// container's cgroup, hold, and can be changed; its pressure is told.
func TestResourcesV2(t *testing.T) {
	if !testenv.CgroupV2() {
		t.Skip("for cgroup v2: make vm runs this")
	}
	o := testenv.Options{Config: "stats_collection_period = \"1s\"\npids_limit = 40\n"}
	eachWith(t, o, func(t *testing.T, env *testenv.Env) {
		notForPeers(t)
		env.Pull(testenv.Busybox)
		podConfig := env.PodConfig("pod")
		pod := env.RunPod(podConfig)
		const high = 16 << 20
		config := env.ContainerConfig("main", "sleep 1000")
		config.Linux.Resources = &resources{
			MemoryLimitInBytes: 64 << 20, CpuQuota: 90000, CpuPeriod: 100000, CpusetCpus: "0", CpusetMems: "0",
			HugepageLimits: []*runtimeapi.HugepageLimit{{PageSize: "2MB", Limit: 4 << 20}},
			Unified:        map[string]string{"memory.high": strconv.Itoa(high), "memory.low": "8388608", "memory.min": "4194304", "cpu.max.burst": "20000"},
		}
		id := env.Run(pod, config, podConfig)
		pid := initPID(t, id)
		limits := func(want map[string]string) {
			t.Helper()
			for name, text := range want {
				controller, _, _ := strings.Cut(name, ".")
				wantEqual(t, name, cgroupFile(t, pid, controller, "", name), text)
			}
		}
		limits(map[string]string{
			"memory.high": strconv.Itoa(high), "memory.low": "8388608", "memory.min": "4194304", "cpu.max.burst": "20000", "cpu.max": "90000 100000",
			"cpuset.cpus": "0", "cpuset.mems": "0", "hugetlb.2MB.max": "4194304", "pids.max": "40",
		})

		wantEqual(t, "processors", env.Exec(id, "nproc"), "1\n")
		resp, err := execSync(env, id, 60, "sh", "-c", "for i in $(seq 60); do sleep 3 >/dev/null & done; wait")
		if err != nil || resp.ExitCode == 0 {
			t.Errorf("more processes than pids_limit: %v, %v", resp, err)
		}
		env.Eventually("its processes to end", func() error {
			if n := cgroupFile(t, pid, "pids", "", "pids.current"); n != "1" {
				return fmt.Errorf("there are %s", n)
			}
			return nil
		})

		env.Exec(id, "dd if=/dev/zero of=/big bs=1M count=48 2>/dev/null")
		if events := cgroupFile(t, pid, "memory", "", "memory.events"); !strings.Contains(events, "high ") || strings.Contains(events, "high 0\n") {
			t.Errorf("memory.high has held nothing back: %s", events)
		}
		if used := parse(t, cgroupFile(t, pid, "memory", "", "memory.current")); used > high+(4<<20) {
			t.Errorf("%d bytes of memory are used, memory.high is %d", used, high)
		}

		env.Exec(id, "for i in 1 2 3; do timeout 3 sh -c 'while :; do :; done' & done; wait")
		env.Eventually("the pressure to be told", func() error {
			s := containerStats(t, env, id)
			cpu, memory, io := s.GetCpu().GetPsi(), s.GetMemory().GetPsi(), s.GetIo().GetPsi()
			if cpu.GetSome().GetTotal() == 0 || memory == nil || io == nil {
				return fmt.Errorf("it is %v, %v and %v", cpu, memory, io)
			}
			return nil
		})

		wantCode(t, "update", update(env, id, &resources{Unified: map[string]string{"memory.high": "33554432", "memory.min": "0"}}), codes.OK)
		limits(map[string]string{"memory.high": "33554432", "memory.low": "8388608", "memory.min": "0", "memory.max": "67108864"})
	})
}

// TestCgroupParent: the pod's processes are below the parent that the request
// names, and the parent, which is the kubelet's, is left to it.
func TestCgroupParent(t *testing.T) {
	each(t, func(t *testing.T, env *testenv.Env) {
		env.Pull(testenv.Busybox)
		config := env.PodConfig("pod")
		config.Linux.CgroupParent = env.Cgroup("kubelet", "pod1")
		pod, id := runIn(env, config, "main")
		wantContains(t, "cgroup", readProc(t, initPID(t, id), "cgroup"), config.Linux.CgroupParent+"/")
		env.RemovePod(pod)
		env.RemoveCgroup(env.Cgroup("kubelet"))
	})
}

// TestCgroupParentLie: a parent that leaves the hierarchy is refused.
func TestCgroupParentLie(t *testing.T) {
	each(t, func(t *testing.T, env *testenv.Env) {
		if testenv.Peer() {
			return
		}
		config := env.PodConfig("pod")
		config.Linux.CgroupParent = "/a/../../../../tmp"
		_, err := env.Runtime.RunPodSandbox(env.Context(), &runtimeapi.RunPodSandboxRequest{Config: config})
		wantCode(t, "cgroup parent with ..", err, codes.InvalidArgument)
	})
}
