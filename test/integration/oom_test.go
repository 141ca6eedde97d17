package integration

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/test/testenv"
)

const oomLimit = 20 << 20

// limited is a container with little memory.
func limited(env *testenv.Env, name, script string) *runtimeapi.ContainerConfig {
	config := env.ContainerConfig(name, script)
	config.Linux.Resources = &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: oomLimit, MemorySwapLimitInBytes: oomLimit}
	return config
}

// eat takes more memory than a limited container has.
const eat = "dd if=/dev/zero of=/dev/null bs=100M count=1"

// oomKills is how many containers TestOOMAndKill has killed in each way, unless
// GANTRY_TEST_OOM_KILLS says.
const oomKills = 50

// TestOOMAndKill: as many containers are killed for lack of memory as by a plain
// SIGKILL, at the same time: each says what it was.
func TestOOMAndKill(t *testing.T) {
	withPod(t, func(t *testing.T, env *testenv.Env, pod string, podConfig *runtimeapi.PodSandboxConfig) {
		kills := countOf(t, "GANTRY_TEST_OOM_KILLS", oomKills)
		slots := make(chan struct{}, 4)
		var wg sync.WaitGroup
		for i := range kills {
			wg.Go(func() {
				slots <- struct{}{}
				defer func() { <-slots }()
				id := env.Run(pod, limited(env, fmt.Sprint("oom", i), "exec "+eat), podConfig)
				checkKilled(t, env, id, "OOMKilled")
				env.Remove(id)
			})
			wg.Go(func() {
				slots <- struct{}{}
				defer func() { <-slots }()
				id := env.Run(pod, limited(env, fmt.Sprint("kill", i), "exec sleep 1000"), podConfig)
				if i%2 == 0 {
					env.Stop(id, 0)
				} else if err := syscall.Kill(initPID(t, id), syscall.SIGKILL); err != nil {
					t.Error(err)
				}
				checkKilled(t, env, id, "Error")
				env.Remove(id)
			})
		}
		wg.Wait()
	})
}

// countOf is the number that a variable of the environment holds, or usual.
func countOf(t *testing.T, variable string, usual int) int {
	t.Helper()
	text := os.Getenv(variable)
	if text == "" {
		return usual
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s: %v", variable, err)
	}
	return n
}

func checkKilled(t *testing.T, env *testenv.Env, id, reason string) {
	t.Helper()
	status := env.WaitExit(id)
	wantEqual(t, "exit code", status.ExitCode, 137)
	wantEqual(t, "reason", status.Reason, reason)
}

// TestOOMOfAChild: it is the container that is reported, whichever of its
// processes the kernel has killed and however the container ends.
func TestOOMOfAChild(t *testing.T) {
	withPod(t, func(t *testing.T, env *testenv.Env, pod string, podConfig *runtimeapi.PodSandboxConfig) {
		for name, tt := range map[string]struct {
			script string
			code   int32
		}{
			"passed-on": {eat + "; exit $?", 137},
			"handled":   {eat + " || exit 3", 3},
			"survived":  {eat + "; exit 0", 0},
		} {
			status := env.WaitExit(env.Run(pod, limited(env, name, tt.script), podConfig))
			// While the killed child's memory is not free yet, the kernel may kill the shell too.
			if status.ExitCode != tt.code && status.ExitCode != 137 {
				t.Errorf("%s: exit code: got %d, want %d or 137", name, status.ExitCode, tt.code)
			}
			wantEqual(t, name+": reason", status.Reason, "OOMKilled")
		}
		// A process of an exec is one of the container's too.
		id := env.Run(pod, limited(env, "exec", "exec sleep 1000"), podConfig)
		resp, err := execSync(env, id, 20, "sh", "-c", "exec "+eat)
		if err != nil || resp.ExitCode != 137 {
			t.Fatalf("exec: %v, %v", resp, err)
		}
		env.Stop(id, 0)
		wantEqual(t, "exec: reason", env.Status(id).Reason, "OOMKilled")
	})
}

// TestOOMOfThePodsLimit: the limit that was hit may be the pod's.
func TestOOMOfThePodsLimit(t *testing.T) {
	each(t, func(t *testing.T, env *testenv.Env) {
		notForPeers(t)
		env.Pull(testenv.Busybox)
		parent := env.Cgroup("kubelet", "pod1")
		config := env.PodConfig("pod")
		config.Linux.CgroupParent = parent
		pod := env.RunPod(config)
		setMemoryLimit(t, parent)
		eats := env.Run(pod, env.ContainerConfig("eats", "exec "+eat), config)
		checkKilled(t, env, eats, "OOMKilled")
		beside := env.Run(pod, env.ContainerConfig("beside", "exec sleep 1000"), config)
		env.Stop(beside, 0)
		checkKilled(t, env, beside, "Error")
		env.RemovePod(pod)
		env.RemoveCgroup(env.Cgroup("kubelet"))
	})
}

func setMemoryLimit(t *testing.T, cgroup string) {
	t.Helper()
	var errs []error
	for _, file := range []string{"memory/" + cgroup + "/memory.limit_in_bytes", cgroup + "/memory.max"} {
		err := os.WriteFile(filepath.Join("/sys/fs/cgroup", file), fmt.Append(nil, 2*oomLimit), 0)
		if err == nil {
			return
		}
		errs = append(errs, err)
	}
	t.Fatal(errors.Join(errs...))
}

// TestOOMWhileNoDaemonRuns: the monitor records it.
func TestOOMWhileNoDaemonRuns(t *testing.T) {
	withPod(t, func(t *testing.T, env *testenv.Env, pod string, podConfig *runtimeapi.PodSandboxConfig) {
		notForPeers(t)
		dir := t.TempDir()
		config := limited(env, "main", "while [ ! -e /gate/go ]; do sleep 0.05; done; exec "+eat)
		config.Mounts = []*runtimeapi.Mount{{HostPath: dir, ContainerPath: "/gate"}}
		id := env.Run(pod, config, podConfig)
		pid := initPID(t, id)
		env.Kill9()
		touch(t, dir+"/go")
		env.Eventually("the container to end", func() error {
			if stat := readProc(t, pid, "stat"); stat != "" && !strings.Contains(stat, ") Z ") {
				return errors.New("it is there")
			}
			return nil
		})
		env.StartDaemon()
		checkKilled(t, env, id, "OOMKilled")
	})
}
