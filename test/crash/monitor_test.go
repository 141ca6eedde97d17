package crash

import (
	"context"
	"slices"
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
	t.Parallel()
	registry := shared.Registry(t)
	for _, rt := range testenv.Runtimes() {
		t.Run(rt, func(t *testing.T) {
			t.Parallel()
			test(t, testenv.Start(t, testenv.Options{Runtime: rt, Registry: registry}))
		})
	}
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
		looks(t, env, pod, ctr)
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

// looks asks again and again for what must never wait.
func looks(t *testing.T, env *testenv.Env, pod, ctr string) {
	t.Helper()
	var took []time.Duration
	for begin := time.Now(); time.Since(begin) < 2*time.Second; time.Sleep(5 * time.Millisecond) {
		for _, look := range []func(context.Context) error{
			func(ctx context.Context) error {
				_, err := env.Runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
				return err
			},
			func(ctx context.Context) error {
				_, err := env.Runtime.ListContainers(ctx, &runtimeapi.ListContainersRequest{})
				return err
			},
			func(ctx context.Context) error {
				_, err := env.Runtime.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: pod})
				return err
			},
			func(ctx context.Context) error {
				_, err := env.Runtime.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: ctr})
				return err
			},
			func(ctx context.Context) error {
				_, err := env.Runtime.Status(ctx, &runtimeapi.StatusRequest{Verbose: true})
				return err
			},
			func(ctx context.Context) error {
				_, err := env.Runtime.ListPodSandboxStats(ctx, &runtimeapi.ListPodSandboxStatsRequest{})
				return err
			},
		} {
			ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
			start := time.Now()
			err := look(ctx)
			cancel()
			if err != nil {
				t.Fatal(err)
			}
			took = append(took, time.Since(start))
		}
	}
	slices.Sort(took)
	t.Logf("%d looks, median %s, p99 %s", len(took), took[len(took)/2], took[len(took)*99/100])
	if median := took[len(took)/2]; median > 50*time.Millisecond { // p99 on a machine that does nothing else
		t.Errorf("looks take %s", median)
	}
}
