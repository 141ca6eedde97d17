package integration

import (
	"path/filepath"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/test/testenv"
)

func gvisorEnv(t *testing.T) *testenv.Env {
	t.Helper()
	notForPeers(t)
	t.Parallel()
	env := testenv.Start(t, testenv.Options{
		Registry: shared.Registry(t),
		Runtimes: map[string]string{"gvisor": testenv.Binary(t, "runsc")},
	})
	env.Pull(testenv.Busybox)
	return env
}

func TestGVisorPod(t *testing.T) {
	env := gvisorEnv(t)
	config := env.PodConfig("sandboxed")
	pod := runWith(t, env, config, "gvisor")
	one := env.Run(pod, env.ContainerConfig("one", "echo hello; dmesg | head -1; sleep 1000"), config)
	env.WaitLog(filepath.Join(config.LogDirectory, "one.log"), "hello")
	two := env.Run(pod, env.ContainerConfig("two", "echo oops >&2; sleep 1; exit 7"), config)
	wantEqual(t, "exec", env.Exec(one, "echo hi"), "hi\n")
	wantEqual(t, "exit code", env.WaitExit(two).ExitCode, 7)
	wantEqual(t, "state", env.Status(one).State, runtimeapi.ContainerState_CONTAINER_RUNNING)
	t.Log(env.Exec(one, "dmesg; ip addr; hostname; cat /etc/hosts; df; mount; id; ps; echo $$"))
	env.RemovePod(pod)
}
