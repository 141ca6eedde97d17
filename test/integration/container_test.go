package integration

import (
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/test/testenv"
)

// withPod gives a test an environment with the busybox image and one pod.
func withPod(t *testing.T, test func(t *testing.T, env *testenv.Env, pod string, config *runtimeapi.PodSandboxConfig)) {
	t.Helper()
	each(t, func(t *testing.T, env *testenv.Env) {
		env.Pull(testenv.Busybox)
		config := env.PodConfig("pod")
		test(t, env, env.RunPod(config), config)
	})
}

// TestContainerLifecycle follows a container through every state.
func TestContainerLifecycle(t *testing.T) {
	withPod(t, func(t *testing.T, env *testenv.Env, pod string, podConfig *runtimeapi.PodSandboxConfig) {
		config := env.ContainerConfig("main", "sleep 1000")
		config.Labels = map[string]string{"a": "b"}
		id := env.Create(pod, config, podConfig)
		status := env.Status(id)
		wantEqual(t, "state", status.State, runtimeapi.ContainerState_CONTAINER_CREATED)
		wantEqual(t, "label", status.Labels["a"], "b")
		wantEqual(t, "image", status.Image.GetImage(), testenv.Busybox)
		if status.ImageRef == "" || status.ImageId == "" && !testenv.Peer() {
			t.Errorf("image_ref %q, image_id %q", status.ImageRef, status.ImageId)
		}

		env.Start(id)
		status = env.Status(id)
		wantEqual(t, "state", status.State, runtimeapi.ContainerState_CONTAINER_RUNNING)
		if status.StartedAt < status.CreatedAt || status.FinishedAt != 0 {
			t.Errorf("created at %d, started at %d, finished at %d", status.CreatedAt, status.StartedAt, status.FinishedAt)
		}
		_, err := env.Runtime.StartContainer(env.Context(), &runtimeapi.StartContainerRequest{ContainerId: id})
		wantCode(t, "start again, as the retry of a call whose answer was lost", err, codes.OK)

		if err := syscall.Kill(initPID(t, id), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		status = env.WaitExit(id)
		wantEqual(t, "exit code of a killed container", status.ExitCode, 137)
		if status.FinishedAt < status.StartedAt {
			t.Errorf("started at %d, finished at %d", status.StartedAt, status.FinishedAt)
		}
		env.Remove(id)
		_, err = env.Runtime.RemoveContainer(env.Context(), &runtimeapi.RemoveContainerRequest{ContainerId: id})
		wantCode(t, "remove again", err, codes.OK)
	})
}

func wantNotOK(t *testing.T, what string, err error) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: succeeded", what)
	}
}

// TestExitCodes: the code and the reason that the kubelet shows.
func TestExitCodes(t *testing.T) {
	withPod(t, func(t *testing.T, env *testenv.Env, pod string, podConfig *runtimeapi.PodSandboxConfig) {
		for _, tt := range []struct {
			name, script, reason string
			code                 int32
		}{
			{"zero", "exit 0", "Completed", 0},
			{"three", "exit 3", "Error", 3},
			{"highest", "exit 255", "Error", 255},
		} {
			id := env.Run(pod, env.ContainerConfig(tt.name, tt.script), podConfig)
			status := env.WaitExit(id)
			wantEqual(t, tt.name+": exit code", status.ExitCode, tt.code)
			wantEqual(t, tt.name+": reason", status.Reason, tt.reason)
		}
	})
}

// TestStop: the stop signal, the grace period, and the kill after it.
func TestStop(t *testing.T) {
	withPod(t, func(t *testing.T, env *testenv.Env, pod string, podConfig *runtimeapi.PodSandboxConfig) {
		log := func(name string) string { return filepath.Join(podConfig.LogDirectory, name+".log") }
		run := func(name, script string, signal runtimeapi.Signal) string {
			config := env.ContainerConfig(name, script+"; echo ready; while :; do sleep 0.1; done")
			config.StopSignal = signal
			id := env.Run(pod, config, podConfig)
			env.WaitLog(log(name), "ready")
			return id
		}

		id := run("polite", "trap 'exit 7' TERM", runtimeapi.Signal_SIGNAL_RUNTIME_DEFAULT)
		prompt(t, "a stop that is heeded", 20*time.Second, func() { env.Stop(id, 30*time.Second) })
		wantEqual(t, "exit code of the trap", env.Status(id).ExitCode, 7)

		id = run("deaf", "trap '' TERM", runtimeapi.Signal_SIGNAL_RUNTIME_DEFAULT)
		prompt(t, "a stop that is ignored", 20*time.Second, func() {
			start := time.Now()
			env.Stop(id, time.Second)
			if took := time.Since(start); took < 900*time.Millisecond {
				t.Errorf("killed after %s, before the grace period's end", took)
			}
		})
		wantEqual(t, "exit code of the killed", env.Status(id).ExitCode, 137)

		id = run("impatient", "trap '' TERM", runtimeapi.Signal_SIGNAL_RUNTIME_DEFAULT)
		prompt(t, "a stop without grace", 15*time.Second, func() { env.Stop(id, 0) })

		if !testenv.Peer() {
			id = run("special", "trap 'exit 9' USR1; trap '' TERM", runtimeapi.Signal_SIGNAL_SIGUSR1)
			prompt(t, "a stop with a signal of its own", 20*time.Second, func() { env.Stop(id, 30*time.Second) })
			wantEqual(t, "exit code of the trap", env.Status(id).ExitCode, 9)
		}
		env.Stop(id, time.Second) // stopped already: nothing to do
	})
}

// TestRemoveRunning: a running container is killed and removed.
func TestRemoveRunning(t *testing.T) {
	withPod(t, func(t *testing.T, env *testenv.Env, pod string, podConfig *runtimeapi.PodSandboxConfig) {
		id := env.Run(pod, env.ContainerConfig("main", "trap '' TERM; sleep 1000"), podConfig)
		prompt(t, "remove", 20*time.Second, func() { env.Remove(id) })
		_, err := env.Runtime.ContainerStatus(env.Context(), &runtimeapi.ContainerStatusRequest{ContainerId: id})
		wantCode(t, "status of a removed container", err, codes.NotFound)
	})
}

// TestProcess: arguments, environment, working directory and user.
func TestProcess(t *testing.T) {
	withPod(t, func(t *testing.T, env *testenv.Env, pod string, podConfig *runtimeapi.PodSandboxConfig) {
		config := env.ContainerConfig("main", "sleep 1000")
		config.Command = []string{"sh", "-c", "echo \"$0 $1|$(pwd)|$A\"; sleep 1000"}
		config.Args = []string{"zero", "one two"}
		config.Envs = []*runtimeapi.KeyValue{{Key: "A", Value: []byte("x=y z")}}
		config.WorkingDir = "/var/new dir"
		config.Linux.SecurityContext = &runtimeapi.LinuxContainerSecurityContext{
			RunAsUser:          &runtimeapi.Int64Value{Value: 1000},
			RunAsGroup:         &runtimeapi.Int64Value{Value: 33},
			SupplementalGroups: []int64{1234},
		}
		id := env.Run(pod, config, podConfig)
		env.WaitLog(filepath.Join(podConfig.LogDirectory, "main.log"), "zero one two|/var/new dir|x=y z")
		wantEqual(t, "uid", env.Exec(id, "id -u"), "1000\n")
		wantEqual(t, "gid", env.Exec(id, "id -g"), "33\n")
		wantEqual(t, "environment of an exec", env.Exec(id, "echo \"$A|$(pwd)\""), "x=y z|/var/new dir\n")
		groups := " " + env.Exec(id, "id -G | tr '\\n' ' '")
		for _, group := range []string{" 33 ", " 1234 ", " 50000 "} { // 50000: of the image's /etc/group
			wantContains(t, "groups", groups, group)
		}

		named := env.ContainerConfig("named", "sleep 1000")
		named.Linux.SecurityContext = &runtimeapi.LinuxContainerSecurityContext{RunAsUsername: "www-data"}
		id = env.Run(pod, named, podConfig)
		wantEqual(t, "user by name", env.Exec(id, "id -u; id -g"), "33\n33\n")
	})
}

// TestOOM: a container that outgrows its memory is killed and says so.
func TestOOM(t *testing.T) {
	withPod(t, func(t *testing.T, env *testenv.Env, pod string, podConfig *runtimeapi.PodSandboxConfig) {
		config := env.ContainerConfig("main", "exec dd if=/dev/zero of=/dev/null bs=100M")
		config.Linux.Resources = &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 20 << 20, MemorySwapLimitInBytes: 20 << 20}
		id := env.Run(pod, config, podConfig)
		status := env.WaitExit(id)
		wantEqual(t, "exit code", status.ExitCode, 137)
		wantEqual(t, "reason", status.Reason, "OOMKilled")
	})
}

// TestStopWhileStarting: the init of a PID namespace without a handler loses its
// stop signal; the container must get it all the same once it has one.
func TestStopWhileStarting(t *testing.T) {
	withPod(t, func(t *testing.T, env *testenv.Env, pod string, podConfig *runtimeapi.PodSandboxConfig) {
		config := env.ContainerConfig("slow", "sleep 1; trap 'exit 7' TERM; while :; do sleep 0.1; done")
		config.Linux = &runtimeapi.LinuxContainerConfig{SecurityContext: &runtimeapi.LinuxContainerSecurityContext{
			NamespaceOptions: &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER},
		}}
		id := env.Run(pod, config, podConfig)
		env.Stop(id, 50*time.Second)
		wantEqual(t, "exit code", env.Status(id).ExitCode, 7)
	})
}
