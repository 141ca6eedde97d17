package integration

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/test/testenv"
)

// drain reads a streaming list to its end. It returns the ids of what the
// messages held, and the messages' sizes.
func drain[M any, T any](t *testing.T, stream grpc.ServerStreamingClient[M], err error, items func(*M) []T, id func(T) string) (ids []string, sizes []int) {
	t.Helper()
	for {
		if err != nil {
			t.Fatalf("after %d messages: %v", len(sizes), err)
		}
		var msg *M
		if msg, err = stream.Recv(); errors.Is(err, io.EOF) {
			return ids, sizes
		} else if err != nil {
			continue
		}
		if len(items(msg)) == 0 {
			t.Error("a message without items")
		}
		for _, item := range items(msg) {
			ids = append(ids, id(item))
		}
		sizes = append(sizes, proto.Size(any(msg).(proto.Message)))
	}
}

func streamedPods(t *testing.T, env *testenv.Env, f *runtimeapi.PodSandboxFilter) ([]string, []int) {
	t.Helper()
	stream, err := env.Runtime.StreamPodSandboxes(env.Context(), &runtimeapi.StreamPodSandboxesRequest{Filter: f})
	return drain(t, stream, err, (*runtimeapi.StreamPodSandboxesResponse).GetPodSandboxes, (*runtimeapi.PodSandbox).GetId)
}

func streamedContainers(t *testing.T, env *testenv.Env, f *runtimeapi.ContainerFilter) ([]string, []int) {
	t.Helper()
	stream, err := env.Runtime.StreamContainers(env.Context(), &runtimeapi.StreamContainersRequest{Filter: f})
	return drain(t, stream, err, (*runtimeapi.StreamContainersResponse).GetContainers, (*runtimeapi.Container).GetId)
}

func streamedImages(t *testing.T, env *testenv.Env, f *runtimeapi.ImageFilter) []string {
	t.Helper()
	stream, err := env.Images.StreamImages(env.Context(), &runtimeapi.StreamImagesRequest{Filter: f})
	ids, _ := drain(t, stream, err, (*runtimeapi.StreamImagesResponse).GetImages, (*runtimeapi.Image).GetId)
	return ids
}

// TestStreamingLists: more than one message may hold arrives whole, in
// messages far below the limit.
func TestStreamingLists(t *testing.T) {
	const limit, count, large = 1 << 20, 12, 150 << 10
	eachWith(t, testenv.Options{Config: fmt.Sprintf("grpc_max_message_size = %d", limit)}, func(t *testing.T, env *testenv.Env) {
		notForPeers(t)
		env.Pull(testenv.Busybox)
		var pods, containers []string
		var config *runtimeapi.PodSandboxConfig
		for i := range count {
			config = env.PodConfig(fmt.Sprint("pod", i))
			config.Annotations = map[string]string{"large": strings.Repeat("x", large)}
			config.Linux.SecurityContext = &runtimeapi.LinuxSandboxSecurityContext{
				NamespaceOptions: &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE},
			}
			pod := env.RunPod(config)
			t.Cleanup(func() { env.RemovePod(pod) }) // no list of them fits into a message
			pods = append(pods, pod)
		}
		small := proto.CloneOf(config)
		small.Annotations = nil
		for i := range count {
			ctr := env.ContainerConfig(fmt.Sprint("c", i), "true")
			ctr.Annotations = map[string]string{"large": strings.Repeat("x", large)}
			containers = append(containers, env.Create(pods[count-1], ctr, small))
		}

		_, err := env.Runtime.ListContainers(env.Context(), &runtimeapi.ListContainersRequest{})
		wantCode(t, "the list in one message", err, codes.ResourceExhausted)
		ids, sizes := streamedPods(t, env, nil)
		checkStreamed(t, "pods", ids, pods, sizes, limit/2)
		ids, sizes = streamedContainers(t, env, nil)
		checkStreamed(t, "containers", ids, containers, sizes, limit/2)
	})
}

func checkStreamed(t *testing.T, what string, got, want []string, sizes []int, most int) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: got %d, want %d, each once and oldest first", what, len(got), len(want))
	}
	if len(sizes) < 2 || slices.Max(sizes) > most {
		t.Errorf("%s: messages of %v bytes", what, sizes)
	}
}

// TestStreamingListFilters: the filters of the List calls, with their meaning.
func TestStreamingListFilters(t *testing.T) {
	each(t, func(t *testing.T, env *testenv.Env) {
		notForPeers(t)
		if ids := streamedImages(t, env, nil); len(ids) != 0 {
			t.Errorf("images before the first pull: %v", ids)
		}
		busybox := env.Pull(testenv.Busybox)
		one, two := env.PodConfig("one"), env.PodConfig("two")
		two.Labels = map[string]string{"colour": "blue"}
		first, second := env.RunPod(one), env.RunPod(two)
		blue := env.ContainerConfig("blue", "sleep 1000")
		blue.Labels = map[string]string{"colour": "blue"}
		a, b := env.Create(first, env.ContainerConfig("a", "true"), one), env.Run(second, blue, two)
		env.StopPod(first)

		ready := &runtimeapi.PodSandboxStateValue{State: runtimeapi.PodSandboxState_SANDBOX_READY}
		running := &runtimeapi.ContainerStateValue{State: runtimeapi.ContainerState_CONTAINER_RUNNING}
		label := map[string]string{"colour": "blue"}
		for _, f := range []*runtimeapi.PodSandboxFilter{nil, {Id: first}, {Id: second[:20]}, {Id: "feed"}, {State: ready}, {LabelSelector: label}, {Id: first, LabelSelector: label}} {
			list, err := env.Runtime.ListPodSandbox(env.Context(), &runtimeapi.ListPodSandboxRequest{Filter: f})
			wantCode(t, "ListPodSandbox", err, codes.OK)
			got, _ := streamedPods(t, env, f)
			wantEqual(t, fmt.Sprintf("pods by %v", f), fmt.Sprint(got), fmt.Sprint(idsOf(list.GetItems())))
		}
		for _, f := range []*runtimeapi.ContainerFilter{nil, {Id: a}, {Id: b[:20]}, {PodSandboxId: first}, {State: running}, {LabelSelector: label}, {PodSandboxId: first, LabelSelector: label}} {
			list, err := env.Runtime.ListContainers(env.Context(), &runtimeapi.ListContainersRequest{Filter: f})
			wantCode(t, "ListContainers", err, codes.OK)
			got, _ := streamedContainers(t, env, f)
			wantEqual(t, fmt.Sprintf("containers by %v", f), fmt.Sprint(got), fmt.Sprint(idsOf(list.GetContainers())))
		}
		nginx := env.Pull(testenv.Nginx)
		wantEqual(t, "images", len(streamedImages(t, env, nil)), 2)
		for name, want := range map[string]string{testenv.Busybox: busybox, "nginx:alpine": nginx, "no/such": ""} {
			f := &runtimeapi.ImageFilter{Image: &runtimeapi.ImageSpec{Image: name}}
			wantEqual(t, "images by "+name, strings.Join(streamedImages(t, env, f), " "), want)
		}
	})
}

func idsOf[T interface{ GetId() string }](items []T) []string {
	var ids []string
	for _, item := range items {
		ids = append(ids, item.GetId())
	}
	return ids
}
