package integration

import (
	"encoding/json"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/test/testenv"
)

// TestVerbose: what each status tells only when asked for more.
func TestVerbose(t *testing.T) {
	withContainer(t, func(t *testing.T, env *testenv.Env, container string) {
		notForPeers(t)
		ctx := env.Context()
		list, err := env.Runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
		if err != nil {
			t.Fatal(err)
		}
		pod := list.Items[0].Id
		for _, verbose := range []bool{false, true} {
			c, err := env.Runtime.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: container, Verbose: verbose})
			if err != nil {
				t.Fatal(err)
			}
			checkInfo(t, "container", verbose, c.Info, "pid", "runtimeSpec", "config", "bundle")
			p, err := env.Runtime.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: pod, Verbose: verbose})
			if err != nil {
				t.Fatal(err)
			}
			checkInfo(t, "pod", verbose, p.Info, "pid", "runtimeSpec", "config", "directory")
			i, err := env.Images.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: testenv.Busybox}, Verbose: verbose})
			if err != nil {
				t.Fatal(err)
			}
			checkInfo(t, "image", verbose, i.Info, "imageSpec", "layers")
			wantEqual(t, "the image's spec", i.Image.Spec.GetImage(), i.Image.Id)
			s, err := env.Runtime.Status(ctx, &runtimeapi.StatusRequest{Verbose: verbose})
			if err != nil {
				t.Fatal(err)
			}
			for _, key := range []string{"config", "runtimes", "problems"} {
				if text, ok := s.Info[key]; ok != verbose || ok && !json.Valid([]byte(text)) {
					t.Errorf("status, verbose %t: %s is %q", verbose, key, text)
				}
			}
		}
	})
}

// checkInfo checks the JSON under "info".
func checkInfo(t *testing.T, what string, verbose bool, info map[string]string, keys ...string) {
	t.Helper()
	if !verbose {
		wantEqual(t, what+": info that nobody asked for", len(info), 0)
		return
	}
	var got map[string]any
	if err := json.Unmarshal([]byte(info["info"]), &got); err != nil {
		t.Errorf("%s: info: %v", what, err)
	}
	for _, key := range keys {
		if got[key] == nil {
			t.Errorf("%s: info has no %s", what, key)
		}
	}
}

// TestHandlers: the default handler has the empty name, and each has its own;
// what they can do is told for each.
func TestHandlers(t *testing.T) {
	each(t, func(t *testing.T, env *testenv.Env) {
		notForPeers(t)
		resp, err := env.Runtime.Status(env.Context(), &runtimeapi.StatusRequest{})
		if err != nil {
			t.Fatal(err)
		}
		names := map[string]bool{}
		for _, h := range resp.RuntimeHandlers {
			names[h.Name] = true
			wantEqual(t, h.Name+": recursive read-only mounts", h.GetFeatures().GetRecursiveReadOnlyMounts(), true)
		}
		if len(names) != 2 || !names[""] || !names[env.RuntimeName] {
			t.Errorf("handlers: %v", resp.RuntimeHandlers)
		}
		wantEqual(t, "supplemental groups policy", resp.GetFeatures().GetSupplementalGroupsPolicy(), true)
	})
}

// TestTargetPID: a container in the PID namespace of another.
func TestTargetPID(t *testing.T) {
	withPod(t, func(t *testing.T, env *testenv.Env, pod string, podConfig *runtimeapi.PodSandboxConfig) {
		own := env.ContainerConfig("target", "exec sleep 1234")
		own.Linux.SecurityContext = &runtimeapi.LinuxContainerSecurityContext{
			NamespaceOptions: &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER},
		}
		target := env.Run(pod, own, podConfig)
		c := env.ContainerConfig("beside", "exec sleep 5678")
		c.Linux.SecurityContext = &runtimeapi.LinuxContainerSecurityContext{
			NamespaceOptions: &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_TARGET, TargetId: target},
		}
		beside := env.Run(pod, c, podConfig)
		wantContains(t, "the first process", env.Exec(beside, "tr '\\0' ' ' </proc/1/cmdline"), "sleep 1234")
	})
}
