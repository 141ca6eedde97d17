package integration

import (
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/test/testenv"
)

// TestRestart: the daemon is killed and started again. Pods, containers, PIDs
// and addresses are the same, output of the time between is not lost, and so is
// not the exit code of a container that ended meanwhile.
func TestRestart(t *testing.T) {
	each(t, func(t *testing.T, env *testenv.Env) {
		env.Pull(testenv.Busybox)
		config := env.PodConfig("pod")
		pod := env.RunPod(config)
		created := env.Create(pod, env.ContainerConfig("created", "exit 4"), config)
		running := env.Run(pod, env.ContainerConfig("running", "i=0; while :; do echo $i; i=$((i+1)); sleep 0.02; done"), config)
		ending := env.Run(pod, env.ContainerConfig("ending", "trap 'exit 6' TERM; while :; do sleep 0.05; done"), config)
		ended := env.Run(pod, env.ContainerConfig("ended", "exit 5"), config)
		env.WaitExit(ended)
		stopped := env.RunPod(env.PodConfig("stopped"))
		env.StopPod(stopped)

		ip := env.PodStatus(pod).Network.Ip
		pid, endingPID := initPID(t, running), initPID(t, ending)
		before := env.Status(running)

		env.Kill9()
		if err := syscall.Kill(endingPID, syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		time.Sleep(300 * time.Millisecond) // the container ends while no daemon runs
		env.StartDaemon()

		status := env.PodStatus(pod)
		wantEqual(t, "pod state", status.State, runtimeapi.PodSandboxState_SANDBOX_READY)
		wantEqual(t, "pod IP", status.Network.Ip, ip)
		wantEqual(t, "stopped pod's state", env.PodStatus(stopped).State, runtimeapi.PodSandboxState_SANDBOX_NOTREADY)
		wantEqual(t, "PID", initPID(t, running), pid)
		after := env.Status(running)
		wantEqual(t, "state", after.State, runtimeapi.ContainerState_CONTAINER_RUNNING)
		wantEqual(t, "start time", after.StartedAt, before.StartedAt)
		wantEqual(t, "creation time", after.CreatedAt, before.CreatedAt)
		wantEqual(t, "exit code from before", env.Status(ended).ExitCode, 5)
		wantEqual(t, "exit code of the time between", env.WaitExit(ending).ExitCode, 6)
		wantEqual(t, "created container's state", env.Status(created).State, runtimeapi.ContainerState_CONTAINER_CREATED)

		useAfterRestart(t, env, pod, config, created, running)
	})
}

// useAfterRestart checks that what survived can be used in every way.
func useAfterRestart(t *testing.T, env *testenv.Env, pod string, config *runtimeapi.PodSandboxConfig, created, running string) {
	t.Helper()
	env.Start(created)
	wantEqual(t, "exit code of a container started later", env.WaitExit(created).ExitCode, 4)
	wantEqual(t, "exec", env.Exec(running, "echo yes"), "yes\n")
	env.Run(pod, env.ContainerConfig("late", "sleep 1000"), config)
	env.Stop(running, 0)
	for i, line := range words(logLines(t, filepath.Join(config.LogDirectory, "running.log"))["stdout"]) {
		if line != fmt.Sprint(i) {
			t.Fatalf("line %d of the log is %q", i, line)
		}
	}
	wantEqual(t, "the same pod by its identity", env.RunPod(config), pod)
}

// TestRestartTwice: nothing depends on having been restarted only once, and an
// orderly end leaves as much behind as a kill.
func TestRestartTwice(t *testing.T) {
	withContainer(t, func(t *testing.T, env *testenv.Env, container string) {
		pid := initPID(t, container)
		env.Kill9()
		env.StartDaemon()
		env.StopDaemon()
		env.StartDaemon()
		wantEqual(t, "PID", initPID(t, container), pid)
		env.Stop(container, 0)
		wantEqual(t, "exit code", env.Status(container).ExitCode, 137)
	})
}

// TestKilledWhilePodStarts: the daemon is killed at some instants of a pod's
// start; the retry of the request gets one working pod.
func TestKilledWhilePodStarts(t *testing.T) {
	each(t, func(t *testing.T, env *testenv.Env) {
		notForPeers(t)
		env.Pull(testenv.Busybox)
		for _, delay := range []time.Duration{1, 10, 25, 50, 90, 150} {
			config := env.PodConfig(fmt.Sprintf("pod%d", delay))
			go func() {
				_, _ = env.Runtime.RunPodSandbox(env.Context(), &runtimeapi.RunPodSandboxRequest{Config: config})
			}()
			time.Sleep(delay * time.Millisecond)
			env.Kill9()
			env.StartDaemon()
			pod := env.RunPod(config)
			status := env.PodStatus(pod)
			wantEqual(t, "state", status.State, runtimeapi.PodSandboxState_SANDBOX_READY)
			id := env.Run(pod, env.ContainerConfig("main", "sleep 1000"), config)
			wantContains(t, "address", env.Exec(id, "ip addr show eth0"), status.Network.Ip+"/")
			list, err := env.Runtime.ListPodSandbox(env.Context(), &runtimeapi.ListPodSandboxRequest{})
			wantCode(t, "list", err, codes.OK)
			wantEqual(t, "number of pods", len(list.Items), 1)
			env.RemovePod(pod)
		}
	})
}

// TestKilledWhileStarting kills daemons at random points of their start, while
// they find out what the node can do: nothing of that stays.
func TestKilledWhileStarting(t *testing.T) {
	each(t, func(t *testing.T, env *testenv.Env) {
		notForPeers(t)
		env.Kill9()
		for range 25 {
			cmd := exec.Command(testenv.Binary(t, "gantryd"), env.Args()...)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(rand.N(120 * time.Millisecond))
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait() // it was killed
		}
		env.StartDaemon()
		wantEqual(t, "user_namespaces of the handler", handlerFeatures(t, env).UserNamespaces, mapsIDs(t, env))
		env.CheckLeaks()
	})
}
