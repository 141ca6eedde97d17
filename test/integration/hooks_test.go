package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/test/testenv"
)

// markHook is a hook that leaves a file <dir>/<container id>-<argument>: it
// reads the container's id from the state that it is given.
func markHook(t *testing.T, dir string) string {
	t.Helper()
	return script(t, dir, "mark", `id=$(tr ',' '\n' | sed -n 's/.*"id" *: *"\([0-9a-f]*\)".*/\1/p' | head -n 1)
echo done > "`+dir+`/$id-$1"
`)
}

func writeHook(t *testing.T, dir, name, hook, stages, when string) {
	t.Helper()
	text := fmt.Sprintf(`{"version": "1.0.0", "hook": %s, "stages": [%s], "when": %s}`, hook, stages, when)
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestHooks: a hook runs at each stage for the containers that it is for; a
// broken file is told and stops nothing.
func TestHooks(t *testing.T) {
	notForPeers(t)
	marks, dir := t.TempDir(), t.TempDir()
	program := markHook(t, marks)
	mark := func(arg string) string { return fmt.Sprintf(`{"path": %q, "args": ["mark", %q]}`, program, arg) }
	for _, stage := range []string{"prestart", "createRuntime", "createContainer", "poststart", "poststop"} {
		writeHook(t, dir, "10-"+stage+".json", mark(stage), `"`+stage+`"`, `{"always": true}`)
	}
	inside := `{"path": "/bin/sh", "args": ["sh", "-c", "echo started > /dev/shm/mark"]}`
	writeHook(t, dir, "20-inside.json", inside, `"startContainer"`, `{"commands": ["^sh$"]}`)
	writeHook(t, dir, "30-annotated.json", mark("annotated"), `"createRuntime"`, `{"annotations": {"^example.com/mark$": "^yes$"}}`)
	writeHook(t, dir, "40-mounts.json", mark("mounts"), `"createRuntime"`, `{"hasBindMounts": true}`)
	writeHook(t, dir, "50-broken.json", mark("broken"), `"never"`, `{"always": true}`)
	o := testenv.Options{Config: fmt.Sprintf("hooks_dirs = [%q]", dir)}
	eachWith(t, o, func(t *testing.T, env *testenv.Env) {
		env.Pull(testenv.Busybox)
		podConfig := env.PodConfig("pod")
		pod := env.RunPod(podConfig)
		plain := env.Run(pod, env.ContainerConfig("plain", "sleep 1000"), podConfig)
		config := env.ContainerConfig("annotated", "sleep 1000")
		config.Annotations = map[string]string{"example.com/mark": "yes"}
		config.Mounts = []*runtimeapi.Mount{{ContainerPath: "/data", HostPath: env.LogDir}}
		annotated := env.Run(pod, config, podConfig)
		wantEqual(t, "mark of startContainer", env.Exec(plain, "cat /dev/shm/mark"), "started\n")

		left := func(container string) string {
			files, err := filepath.Glob(filepath.Join(marks, container+"-*"))
			if err != nil {
				t.Fatal(err)
			}
			for i := range files {
				files[i] = strings.TrimPrefix(filepath.Base(files[i]), container+"-")
			}
			return strings.Join(files, " ")
		}
		wantEqual(t, "hooks of a plain container", left(plain), "createContainer createRuntime poststart prestart")
		wantEqual(t, "hooks of the other", left(annotated), "annotated createContainer createRuntime mounts poststart prestart")
		wantEqual(t, "hooks of the pause container", left(pod), "")
		env.Stop(plain, 0)
		env.Remove(plain)
		wantEqual(t, "hooks of a removed container", left(plain), "createContainer createRuntime poststart poststop prestart")
		wantContains(t, "problems", verboseStatus(t, env, "problems"), "50-broken.json")
	})
}

// TestFailingHook: a hook that fails keeps the container from being created,
// in its own words, and leaves nothing.
func TestFailingHook(t *testing.T) {
	notForPeers(t)
	dir := t.TempDir()
	program := script(t, dir, "fail", "echo no such gadget >&2; exit 3\n")
	writeHook(t, dir, "fail.json", fmt.Sprintf(`{"path": %q}`, program), `"createRuntime"`, `{"always": true}`)
	o := testenv.Options{Config: fmt.Sprintf("hooks_dirs = [%q]", dir)}
	eachWith(t, o, func(t *testing.T, env *testenv.Env) {
		env.Pull(testenv.Busybox)
		podConfig := env.PodConfig("pod")
		pod := env.RunPod(podConfig)
		_, err := env.Runtime.CreateContainer(env.Context(), &runtimeapi.CreateContainerRequest{
			PodSandboxId: pod, Config: env.ContainerConfig("main", "true"), SandboxConfig: podConfig,
		})
		if err == nil || !strings.Contains(err.Error(), "hook") {
			t.Errorf("create: %v", err)
		}
		list, err := env.Runtime.ListContainers(env.Context(), &runtimeapi.ListContainersRequest{})
		if err != nil || len(list.GetContainers()) != 0 {
			t.Errorf("containers left: %v, %v", list, err)
		}
	})
}

// verboseStatus returns one part of the verbose Status.
func verboseStatus(t *testing.T, env *testenv.Env, key string) string {
	t.Helper()
	resp, err := env.Runtime.Status(env.Context(), &runtimeapi.StatusRequest{Verbose: true})
	if err != nil {
		t.Fatal(err)
	}
	return resp.Info[key]
}
