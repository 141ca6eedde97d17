package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/test/testenv"
)

// runWith runs a pod with a handler.
func runWith(t *testing.T, env *testenv.Env, config *runtimeapi.PodSandboxConfig, handler string) string {
	t.Helper()
	resp, err := env.Runtime.RunPodSandbox(env.Context(), &runtimeapi.RunPodSandboxRequest{Config: config, RuntimeHandler: handler})
	if err != nil {
		t.Fatalf("RunPodSandbox with handler %q: %v", handler, err)
	}
	return resp.PodSandboxId
}

// configure replaces a file of conf.d and starts the daemon anew.
func configure(t *testing.T, env *testenv.Env, toml string) {
	t.Helper()
	writeConfD(t, env, toml)
	env.Kill9()
	env.StartDaemon()
}

// writeConfD replaces the one file of conf.d.
func writeConfD(t *testing.T, env *testenv.Env, toml string) {
	t.Helper()
	dir := filepath.Join(env.Dir, "conf.d")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "10.toml"), []byte(toml), 0o644); err != nil {
		t.Fatal(err)
	}
}

// specOf is the OCI specification that a container, or a pod's pause, was created with.
func specOf(t *testing.T, info map[string]string) (spec struct {
	Annotations map[string]string
	Linux       struct{ Devices []struct{ Path string } }
}) {
	t.Helper()
	var all struct{ RuntimeSpec json.RawMessage }
	if err := json.Unmarshal([]byte(info["info"]), &all); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(all.RuntimeSpec, &spec); err != nil {
		t.Fatal(err)
	}
	return spec
}

func containerSpec(t *testing.T, env *testenv.Env, id string) map[string]string {
	t.Helper()
	resp, err := env.Runtime.ContainerStatus(env.Context(), &runtimeapi.ContainerStatusRequest{ContainerId: id, Verbose: true})
	if err != nil {
		t.Fatal(err)
	}
	return resp.Info
}

// TestSeveralHandlers: a pod gets the binary of its handler, an unknown handler is
// refused, and Status lists each with the default under the empty name.
func TestSeveralHandlers(t *testing.T) {
	notForPeers(t)
	o := testenv.Options{Runtimes: map[string]string{"a-crun": testenv.Program(t, "crun"), "b-runc": testenv.Program(t, "runc")}}
	eachWith(t, o, func(t *testing.T, env *testenv.Env) {
		env.Pull(testenv.Busybox)
		for _, handler := range []string{"", "a-crun", "b-runc"} {
			config := env.PodConfig("pod" + handler)
			pod := runWith(t, env, config, handler)
			id := env.Run(pod, env.ContainerConfig("main", "sleep 1000"), config)
			wantEqual(t, "exec", env.Exec(id, "echo hi"), "hi\n")
			wantEqual(t, "handler told", env.PodStatus(pod).RuntimeHandler, handler)
			state := filepath.Join(env.RunRoot, "runtime-"+handler, id)
			if _, err := os.Stat(state); handler != "" && err != nil {
				t.Errorf("the state of the container is not below the handler's root: %v", err)
			}
		}
		_, err := env.Runtime.RunPodSandbox(env.Context(), &runtimeapi.RunPodSandboxRequest{Config: env.PodConfig("x"), RuntimeHandler: "none"})
		wantCode(t, "unknown handler", err, codes.InvalidArgument)
		status, err := env.Runtime.Status(env.Context(), &runtimeapi.StatusRequest{})
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, h := range status.RuntimeHandlers {
			names = append(names, h.Name)
			if h.Features == nil {
				t.Errorf("handler %q tells no features", h.Name)
			}
		}
		for _, want := range []string{"", "a-crun", "b-runc", env.RuntimeName} {
			if !strings.Contains(fmt.Sprintf("%q", names), fmt.Sprintf("%q", want)) {
				t.Errorf("handlers %q lack %q", names, want)
			}
		}
		if !status.Features.SupplementalGroupsPolicy {
			t.Error("the supplemental groups policy is not told")
		}
	})
}

// TestHandlerOptions: annotations reach the specification as configured, and a
// privileged container without the node's devices has only its own.
func TestHandlerOptions(t *testing.T) {
	notForPeers(t)
	each(t, func(t *testing.T, env *testenv.Env) {
		env.Pull(testenv.Busybox)
		configure(t, env, fmt.Sprintf(`[runtimes.%s]
default_annotations = { "example.com/default" = "configured", "example.com/both" = "configured" }
allowed_annotations = ["run.oci.allowed", "example.com/pod-"]
privileged_without_host_devices = true
`, env.RuntimeName))
		podConfig := env.PodConfig("pod")
		podConfig.Annotations = map[string]string{"example.com/pod-a": "1", "example.com/other": "1", "run.oci.keep": "x"}
		podConfig.Linux.SecurityContext = &runtimeapi.LinuxSandboxSecurityContext{Privileged: true}
		pod := env.RunPod(podConfig)
		config := env.ContainerConfig("main", "sleep 1000")
		config.Annotations = map[string]string{
			"run.oci.allowed.x": "1", "run.oci.hooks.stdout": "/dev/null", "example.com/both": "request", "io.kubernetes.cri.sandbox-id": "lie",
		}
		config.Linux.SecurityContext = &runtimeapi.LinuxContainerSecurityContext{Privileged: true}
		config.Devices = []*runtimeapi.Device{{HostPath: "/dev/null", ContainerPath: "/dev/asked"}}
		id := env.Run(pod, config, podConfig)
		spec := specOf(t, containerSpec(t, env, id))
		want := map[string]string{
			"example.com/default": "configured", "example.com/both": "request", "example.com/pod-a": "1", "run.oci.allowed.x": "1",
			"io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.sandbox-id": pod,
			"io.kubernetes.cri.sandbox-name": "pod", "io.kubernetes.cri.sandbox-namespace": "test",
			"example.com/other": "", "run.oci.hooks.stdout": "", "run.oci.keep": "",
		}
		for key, value := range want {
			wantEqual(t, "annotation "+key, spec.Annotations[key], value)
		}
		resp, err := env.Runtime.PodSandboxStatus(env.Context(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: pod, Verbose: true})
		if err != nil {
			t.Fatal(err)
		}
		pause := specOf(t, resp.Info)
		wantEqual(t, "annotation of pause", pause.Annotations["example.com/other"], "1")
		wantEqual(t, "annotation of pause", pause.Annotations["run.oci.keep"], "")
		wantEqual(t, "type of pause", pause.Annotations["io.kubernetes.cri.container-type"], "sandbox")
		wantEqual(t, "devices", env.Exec(id, "test -e /dev/asked && echo asked; test -e /dev/kmsg || echo none"), "asked\nnone\n")
	})
}

// TestHandlerChanges: pods stay with the binary, root and options that they
// were made with, whatever becomes of the configuration.
func TestHandlerChanges(t *testing.T) {
	notForPeers(t)
	each(t, func(t *testing.T, env *testenv.Env) {
		env.Pull(testenv.Busybox)
		bin := filepath.Join(env.Dir, "old-runtime")
		copyFile(t, testenv.Program(t, env.RuntimeName), bin)
		root := filepath.Join(env.RunRoot, "old-root")
		configure(t, env, fmt.Sprintf("[runtimes.old]\npath = %q\nroot = %q\nargs = [\"--debug\"]\n", bin, root))
		config := env.PodConfig("old")
		pod := runWith(t, env, config, "old")
		id := env.Run(pod, env.ContainerConfig("main", "sleep 1000"), config)
		wantContains(t, "the pod's record", podRecord(t, env, pod), "--debug")

		configure(t, env, "") // the handler is gone
		wantEqual(t, "exec", env.Exec(id, "echo hi"), "hi\n")
		later := env.Run(pod, env.ContainerConfig("later", "sleep 1000"), config)
		if _, err := os.Stat(filepath.Join(root, later)); err != nil {
			t.Errorf("a later container is not below the old root: %v", err)
		}
		env.Stop(id, 0)
		env.Remove(id)

		hidden := bin + ".hidden"
		rename(t, bin, hidden)
		configure(t, env, "") // the binary, too
		wantEqual(t, "state of the pod", env.PodStatus(pod).State, runtimeapi.PodSandboxState_SANDBOX_READY)
		wantEqual(t, "state of the container", env.Status(later).State, runtimeapi.ContainerState_CONTAINER_RUNNING)
		wantContains(t, "problems", verboseStatus(t, env, "problems"), "old-runtime")
		rename(t, hidden, bin)
		wantEqual(t, "exec", env.Exec(later, "echo hi"), "hi\n")
		env.RemovePod(pod)
	})
}

func podRecord(t *testing.T, env *testenv.Env, pod string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(env.RunRoot, "pods", pod, "pod.json"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, data, 0o755); err != nil {
		t.Fatal(err)
	}
}
