package integration

import (
	"net/netip"
	"testing"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/test/testenv"
)

// TestPodLifecycle: run, status, list, stop, stop again, remove, remove again.
func TestPodLifecycle(t *testing.T) {
	each(t, func(t *testing.T, env *testenv.Env) {
		config := env.PodConfig("pod")
		config.Annotations = map[string]string{"note": "kept"}
		pod := env.RunPod(config)

		status := env.PodStatus(pod)
		wantEqual(t, "state", status.State, runtimeapi.PodSandboxState_SANDBOX_READY)
		wantEqual(t, "name", status.Metadata.Name, "pod")
		wantEqual(t, "uid", status.Metadata.Uid, config.Metadata.Uid)
		wantEqual(t, "label", status.Labels["test"], t.Name())
		wantEqual(t, "annotation", status.Annotations["note"], "kept")
		ip, err := netip.ParseAddr(status.Network.GetIp())
		if err != nil || !netip.MustParsePrefix(env.Subnet).Contains(ip) {
			t.Errorf("IP %q is not in %s", status.Network.GetIp(), env.Subnet)
		}
		if status.CreatedAt == 0 {
			t.Error("created_at is not set")
		}

		env.StopPod(pod)
		env.StopPod(pod)
		wantEqual(t, "state after stop", env.PodStatus(pod).State, runtimeapi.PodSandboxState_SANDBOX_NOTREADY)

		env.RemovePod(pod)
		_, err = env.Runtime.RemovePodSandbox(env.Context(), &runtimeapi.RemovePodSandboxRequest{PodSandboxId: pod})
		wantCode(t, "remove again", err, codes.OK)
		_, err = env.Runtime.PodSandboxStatus(env.Context(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: pod})
		wantCode(t, "status of a removed pod", err, codes.NotFound)
	})
}

// TestListPods: each filter, alone and together.
func TestListPods(t *testing.T) {
	each(t, func(t *testing.T, env *testenv.Env) {
		one, two := env.PodConfig("one"), env.PodConfig("two")
		two.Labels = map[string]string{"colour": "blue"}
		first, second := env.RunPod(one), env.RunPod(two)
		env.StopPod(first)

		ready := &runtimeapi.PodSandboxStateValue{State: runtimeapi.PodSandboxState_SANDBOX_READY}
		for _, tt := range []struct {
			name   string
			filter *runtimeapi.PodSandboxFilter
			want   []string
		}{
			{"none", nil, []string{first, second}},
			{"id", &runtimeapi.PodSandboxFilter{Id: first}, []string{first}},
			{"id prefix", &runtimeapi.PodSandboxFilter{Id: second[:20]}, []string{second}},
			{"unknown id", &runtimeapi.PodSandboxFilter{Id: "feed"}, nil},
			{"state", &runtimeapi.PodSandboxFilter{State: ready}, []string{second}},
			{"label", &runtimeapi.PodSandboxFilter{LabelSelector: map[string]string{"colour": "blue"}}, []string{second}},
			{"label and id", &runtimeapi.PodSandboxFilter{Id: first, LabelSelector: map[string]string{"colour": "blue"}}, nil},
		} {
			resp, err := env.Runtime.ListPodSandbox(env.Context(), &runtimeapi.ListPodSandboxRequest{Filter: tt.filter})
			if err != nil {
				t.Fatalf("list by %s: %v", tt.name, err)
			}
			got := map[string]bool{}
			for _, item := range resp.Items {
				got[item.Id] = true
			}
			if len(got) != len(tt.want) {
				t.Errorf("list by %s: got %v, want %v", tt.name, got, tt.want)
			}
			for _, id := range tt.want {
				if !got[id] {
					t.Errorf("list by %s: %s is missing", tt.name, id)
				}
			}
		}
	})
}

// TestRemovePodWithContainers: a running pod is not removed; a stopped one goes
// with its containers.
func TestRemovePodWithContainers(t *testing.T) {
	each(t, func(t *testing.T, env *testenv.Env) {
		env.Pull(testenv.Busybox)
		config := env.PodConfig("pod")
		pod := env.RunPod(config)
		running := env.Run(pod, env.ContainerConfig("running", "sleep 1000"), config)
		created := env.Create(pod, env.ContainerConfig("created", "true"), config)

		env.StopPod(pod)
		status := env.Status(running)
		wantEqual(t, "state after the pod's stop", status.State, runtimeapi.ContainerState_CONTAINER_EXITED)
		env.RemovePod(pod)
		for _, id := range []string{running, created} {
			_, err := env.Runtime.ContainerStatus(env.Context(), &runtimeapi.ContainerStatusRequest{ContainerId: id})
			wantCode(t, "status of a removed pod's container", err, codes.NotFound)
		}
	})
}
