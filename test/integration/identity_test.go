package integration

import (
	"sync"
	"testing"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/test/testenv"
)

// TestSamePodJoins: a request with the identity of a pod that exists, or that
// is being made, returns that pod.
func TestSamePodJoins(t *testing.T) {
	each(t, func(t *testing.T, env *testenv.Env) {
		notForPeers(t)
		config := env.PodConfig("pod")
		ids := make([]string, 8)
		var all sync.WaitGroup
		for i := range ids {
			all.Go(func() {
				resp, err := env.Runtime.RunPodSandbox(env.Context(), &runtimeapi.RunPodSandboxRequest{Config: config})
				if err != nil {
					t.Errorf("RunPodSandbox: %v", err)
					return
				}
				ids[i] = resp.PodSandboxId
			})
		}
		all.Wait()
		for _, id := range ids {
			wantEqual(t, "id of a simultaneous request", id, ids[0])
		}
		wantEqual(t, "id of a later request", env.RunPod(config), ids[0])

		next := env.PodConfig("pod")
		next.Metadata.Attempt = 1
		if env.RunPod(next) == ids[0] {
			t.Error("the next attempt got the same pod")
		}
		env.RemovePod(ids[0])
		if again := env.RunPod(config); again == ids[0] {
			t.Error("a removed pod's id came back")
		}
	})
}

// TestSameContainerJoins: the same for containers.
func TestSameContainerJoins(t *testing.T) {
	withPod(t, func(t *testing.T, env *testenv.Env, pod string, podConfig *runtimeapi.PodSandboxConfig) {
		notForPeers(t)
		config := env.ContainerConfig("main", "sleep 1000")
		request := &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: config, SandboxConfig: podConfig}
		first := env.Create(pod, config, podConfig)
		ids := make([]string, 4)
		var all sync.WaitGroup
		for i := range ids {
			all.Go(func() {
				resp, err := env.Runtime.CreateContainer(env.Context(), request)
				if err != nil {
					t.Errorf("CreateContainer: %v", err)
					return
				}
				ids[i] = resp.ContainerId
			})
		}
		all.Wait()
		for _, id := range ids {
			wantEqual(t, "id of a repeated request", id, first)
		}
		env.Start(first)
		env.Remove(first)
		if env.Create(pod, config, podConfig) == first {
			t.Error("a removed container's id came back")
		}
	})
}

// TestSimultaneousRemovals: of one pod with containers, by many callers.
func TestSimultaneousRemovals(t *testing.T) {
	withPod(t, func(t *testing.T, env *testenv.Env, pod string, podConfig *runtimeapi.PodSandboxConfig) {
		id := env.Run(pod, env.ContainerConfig("main", "sleep 1000"), podConfig)
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				_, err := env.Runtime.StopContainer(env.Context(), &runtimeapi.StopContainerRequest{ContainerId: id})
				wantCode(t, "StopContainer", err, codes.OK)
				_, err = env.Runtime.RemoveContainer(env.Context(), &runtimeapi.RemoveContainerRequest{ContainerId: id})
				wantCode(t, "RemoveContainer", err, codes.OK)
				_, err = env.Runtime.StopPodSandbox(env.Context(), &runtimeapi.StopPodSandboxRequest{PodSandboxId: pod})
				wantCode(t, "StopPodSandbox", err, codes.OK)
				_, err = env.Runtime.RemovePodSandbox(env.Context(), &runtimeapi.RemovePodSandboxRequest{PodSandboxId: pod})
				wantCode(t, "RemovePodSandbox", err, codes.OK)
			})
		}
		all.Wait()
	})
}

func notForPeers(t *testing.T) {
	t.Helper()
	if testenv.Peer() {
		t.Skip("a promise of Gantry's own")
	}
}
