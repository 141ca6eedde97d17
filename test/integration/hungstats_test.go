package integration

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/test/testenv"
)

// TestStreamingStats: stats of more than one message may hold arrive whole,
// each once, in messages far below the limit.
func TestStreamingStats(t *testing.T) {
	const limit, count, large = 1 << 20, 8, 150 << 10
	eachWith(t, testenv.Options{Config: fmt.Sprintf("grpc_max_message_size = %d", limit)}, func(t *testing.T, env *testenv.Env) {
		notForPeers(t)
		env.Pull(testenv.Busybox)
		annotations := map[string]string{"large": strings.Repeat("x", large)}
		var pods, ctrs []string
		for i := range count {
			config := env.PodConfig(fmt.Sprint("pod", i))
			config.Linux.SecurityContext = &runtimeapi.LinuxSandboxSecurityContext{
				NamespaceOptions: &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE},
			}
			small := proto.CloneOf(config)
			config.Annotations = annotations
			pod := env.RunPod(config)
			t.Cleanup(func() { env.RemovePod(pod) }) // no list of them fits into a message
			ctr := env.ContainerConfig("main", "sleep 1000")
			ctr.Annotations = annotations
			pods, ctrs = append(pods, pod), append(ctrs, env.Run(pod, ctr, small))
		}
		_, err := env.Runtime.ListContainerStats(env.Context(), &runtimeapi.ListContainerStatsRequest{})
		wantCode(t, "the containers' in one message", err, codes.ResourceExhausted)
		_, err = env.Runtime.ListPodSandboxStats(env.Context(), &runtimeapi.ListPodSandboxStatsRequest{})
		wantCode(t, "the pods' in one message", err, codes.ResourceExhausted)

		check := func(what string, got, want []string, sizes []int) {
			slices.Sort(got)
			slices.Sort(want)
			wantEqual(t, what, fmt.Sprint(got), fmt.Sprint(want))
			if most := slices.Max(sizes); len(sizes) < 3 || most > limit/2 {
				t.Errorf("%s: %d messages, the largest of %d bytes", what, len(sizes), most)
			}
		}
		ofContainers, err := env.Runtime.StreamContainerStats(env.Context(), &runtimeapi.StreamContainerStatsRequest{})
		ids, sizes := drain(t, ofContainers, err, (*runtimeapi.StreamContainerStatsResponse).GetContainerStats,
			func(c *runtimeapi.ContainerStats) string { return c.GetAttributes().GetId() })
		check("containers", ids, ctrs, sizes)
		ofPods, err := env.Runtime.StreamPodSandboxStats(env.Context(), &runtimeapi.StreamPodSandboxStatsRequest{})
		ids, sizes = drain(t, ofPods, err, (*runtimeapi.StreamPodSandboxStatsResponse).GetPodSandboxStats,
			func(p *runtimeapi.PodSandboxStats) string { return p.GetAttributes().GetId() })
		check("pods", ids, pods, sizes)
	})
}

// TestStatsOfAHungPod: a pod of which nothing moves any more, neither its
// monitor nor its pause nor its container, delays no list, and is in it.
func TestStatsOfAHungPod(t *testing.T) {
	each(t, func(t *testing.T, env *testenv.Env) {
		notForPeers(t)
		env.Pull(testenv.Busybox)
		hung, hungCtr := runIn(env, env.PodConfig("hung"), "main")
		runIn(env, env.PodConfig("other"), "main")
		pause := pausePID(t, env, hung)
		_, monitor := startOf(t, pause)
		for _, pid := range []int{monitor, pause, initPID(t, hungCtr)} {
			if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := unix.Kill(pid, unix.SIGCONT); err != nil && !errors.Is(err, unix.ESRCH) {
					t.Error(err)
				}
			})
		}
		stopping := make(chan error, 1)
		go func() { // the pod's lock is held meanwhile
			_, err := env.Runtime.StopContainer(env.Context(), &runtimeapi.StopContainerRequest{ContainerId: hungCtr, Timeout: 60})
			stopping <- err
		}()
		for name, list := range map[string]func() (int, error){
			"ListContainerStats": func() (int, error) {
				resp, err := env.Runtime.ListContainerStats(env.Context(), &runtimeapi.ListContainerStatsRequest{})
				return len(resp.GetStats()), err
			},
			"ListPodSandboxStats": func() (int, error) {
				resp, err := env.Runtime.ListPodSandboxStats(env.Context(), &runtimeapi.ListPodSandboxStatsRequest{})
				return len(resp.GetStats()), err
			},
			"ListPodSandboxMetrics": func() (int, error) {
				resp, err := env.Runtime.ListPodSandboxMetrics(env.Context(), &runtimeapi.ListPodSandboxMetricsRequest{})
				return len(resp.GetPodMetrics()), err
			},
			"StreamPodSandboxStats": func() (int, error) {
				stream, err := env.Runtime.StreamPodSandboxStats(env.Context(), &runtimeapi.StreamPodSandboxStatsRequest{})
				ids, _ := drain(t, stream, err, (*runtimeapi.StreamPodSandboxStatsResponse).GetPodSandboxStats,
					func(p *runtimeapi.PodSandboxStats) string { return p.GetAttributes().GetId() })
				return len(ids), err
			},
			"ContainerStats": func() (int, error) {
				resp, err := env.Runtime.ContainerStats(env.Context(), &runtimeapi.ContainerStatsRequest{ContainerId: hungCtr})
				if resp.GetStats().GetMemory() == nil {
					return 0, err
				}
				return 2, err
			},
		} {
			for range 3 {
				prompt(t, name, 20*time.Second, func() {
					n, err := list()
					wantCode(t, name, err, codes.OK)
					wantEqual(t, name, n, 2)
				})
			}
		}
		for _, pid := range []int{monitor, pause, initPID(t, hungCtr)} {
			if err := unix.Kill(pid, unix.SIGCONT); err != nil {
				t.Error(err)
			}
		}
		wantCode(t, "the stop meanwhile", <-stopping, codes.OK)
	})
}
