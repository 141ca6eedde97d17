package integration

import (
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
