package integration

import (
	"fmt"
	"strconv"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/gantry-cri/gantry/test/testenv"
)

// TestSwap: on a node with swap a container gets what memory.swap.max, or a sum
// of memory and swap, gives it; it can use that, and its use is told. A limit of
// memory alone forbids swap. No test runs beside it: a limit of memory that a test
// sets on a pod's cgroup would limit nothing.
func TestSwap(t *testing.T) {
	if !testenv.CgroupV2() {
		t.Skip("memory.swap.max is of cgroup v2: make vm runs this")
	}
	testenv.SwapOn(t, 512<<20)
	const memory, swap, most = 32 << 20, 24 << 20, 44 << 20
	eachAlone(t, testenv.Options{}, func(t *testing.T, env *testenv.Env) {
		env.Pull(testenv.Busybox)
		podConfig := env.PodConfig("pod")
		pod := env.RunPod(podConfig)
		run := func(name, script string, r *resources) string {
			t.Helper()
			config := env.ContainerConfig(name, script)
			config.Linux.Resources = r
			return env.Run(pod, config, podConfig)
		}
		// In small steps: where swap is slow, the kernel kills rather than waits for it.
		fill := fmt.Sprintf("for i in $(seq 0 %d); do dd if=/dev/zero of=/dev/shm/file bs=1M count=1 seek=$i 2>/dev/null; done; exec sleep 1000", most>>20-1)
		for name, r := range map[string]*resources{
			"own": {MemoryLimitInBytes: memory, Unified: map[string]string{"memory.swap.max": strconv.Itoa(swap)}},
			"sum": {MemoryLimitInBytes: memory, MemorySwapLimitInBytes: memory + swap},
		} {
			id := run(name, fill, r)
			file := func(file string) string { return cgroupFile(t, initPID(t, id), "memory", "", file) }
			wantEqual(t, name+": memory.swap.max", file("memory.swap.max"), strconv.Itoa(swap))
			env.Eventually(name+" to swap", func() error {
				s := containerStats(t, env, id).GetSwap()
				used, free := s.GetSwapUsageBytes().GetValue(), s.GetSwapAvailableBytes().GetValue()
				if used < most-memory || used+free != swap {
					return fmt.Errorf("%d bytes are used, %d available; of memory: %s", used, free, file("memory.events"))
				}
				return nil
			})
			wantCode(t, name+": update", update(env, id, &resources{Unified: map[string]string{"memory.swap.max": strconv.Itoa(2 * swap)}}), codes.OK)
			wantEqual(t, name+": memory.swap.max after the update", file("memory.swap.max"), strconv.Itoa(2*swap))
			env.Exec(id, "rm /dev/shm/file")
			env.Remove(id)
		}
		checkKilled(t, env, run("none", fmt.Sprintf("exec dd if=/dev/zero of=/dev/null bs=%d count=1", most), &resources{MemoryLimitInBytes: memory}), "OOMKilled")
	})
}
