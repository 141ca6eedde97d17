package crash

import (
	"context"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/test/testenv"
)

func containsMonitor(cgroups, pod string) bool {
	return strings.Contains(cgroups, "/"+pod+"-monitor\n")
}

// each runs a test once for each runtime.
func each(t *testing.T, test func(t *testing.T, env *testenv.Env)) {
	t.Helper()
	eachWith(t, testenv.Options{}, test)
}

func eachWith(t *testing.T, o testenv.Options, test func(t *testing.T, env *testenv.Env)) {
	t.Helper()
	t.Parallel()
	o.Registry = shared.Registry(t)
	for _, rt := range testenv.Runtimes() {
		t.Run(rt, func(t *testing.T) {
			t.Parallel()
			o := o
			o.Runtime = rt
			test(t, testenv.Start(t, o))
		})
	}
}

// one runs a test with the first runtime only: what it is about does not depend
// on which it is.
func one(t *testing.T, o testenv.Options, test func(t *testing.T, env *testenv.Env)) {
	t.Helper()
	t.Parallel()
	o.Registry, o.Runtime = shared.Registry(t), testenv.Runtimes()[0]
	test(t, testenv.Start(t, o))
}

// TestMonitorKilled: the containers of the monitor's pod end with a reason, and
// soon; another pod does not notice, and the pod can be removed.
func TestMonitorKilled(t *testing.T) {
	each(t, func(t *testing.T, env *testenv.Env) {
		env.Pull(testenv.Busybox)
		config, other := env.PodConfig("hit"), env.PodConfig("other")
		pod := env.RunPod(config)
		ctr := env.Run(pod, env.ContainerConfig("main", "sleep 1000"), config)
		bystander := env.Run(env.RunPod(other), env.ContainerConfig("main", "sleep 1000"), other)

		stop := watch(t, env, "a killed monitor", pod, ctr)
		if err := unix.Kill(monitorOf(t, pod), unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		status := env.WaitExit(ctr)
		t.Logf("seen after %s: exit code %d, %s: %s", time.Since(begin).Round(time.Millisecond), status.ExitCode, status.Reason, status.Message)
		if status.Reason == "" || status.Reason == "Completed" || status.ExitCode == 0 {
			t.Errorf("exit code %d, reason %q", status.ExitCode, status.Reason)
		}
		env.Eventually("the pod is not ready", func() error {
			if env.PodStatus(pod).State == runtimeapi.PodSandboxState_SANDBOX_NOTREADY {
				return nil
			}
			return context.DeadlineExceeded
		})
		if got := env.Exec(bystander, "echo here"); got != "here\n" {
			t.Errorf("the other pod says %q", got)
		}
		stop()
		env.StopPod(pod)
		env.RemovePod(pod)
	})
}

// TestMonitorStopped: while a monitor hangs, nothing waits but calls on its pod.
func TestMonitorStopped(t *testing.T) {
	each(t, func(t *testing.T, env *testenv.Env) {
		env.Pull(testenv.Busybox)
		config, other := env.PodConfig("hit"), env.PodConfig("other")
		pod := env.RunPod(config)
		ctr := env.Run(pod, env.ContainerConfig("main", "sleep 1000"), config)
		monitor := monitorOf(t, pod)
		if err := unix.Kill(monitor, unix.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Kill(monitor, unix.SIGCONT) }) // it may have ended
		stop := watch(t, env, "a stopped monitor", pod, ctr)
		hung := make(chan error, 1)
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			_, err := env.Runtime.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{
				PodSandboxId: pod, Config: env.ContainerConfig("late", "sleep 1000"), SandboxConfig: config,
			})
			hung <- err
		}()
		bystander := env.Run(env.RunPod(other), env.ContainerConfig("main", "sleep 1000"), other)
		if got := env.Exec(bystander, "echo here"); got != "here\n" {
			t.Errorf("the other pod says %q", got)
		}
		stop()
		if err := <-hung; err == nil {
			t.Error("a container was created by a monitor that was stopped")
		}
		if err := unix.Kill(monitor, unix.SIGCONT); err != nil {
			t.Fatal(err)
		}
		env.Create(pod, env.ContainerConfig("late", "sleep 1000"), config) // what was given up can be asked for again
		env.StopPod(pod)
	})
}
