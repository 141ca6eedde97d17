package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/test/testenv"
)

// runtimeReady is the condition of that name.
func runtimeReady(t *testing.T, env *testenv.Env) *runtimeapi.RuntimeCondition {
	t.Helper()
	resp, err := env.Runtime.Status(env.Context(), &runtimeapi.StatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range resp.GetStatus().GetConditions() {
		if c.GetType() == runtimeapi.RuntimeReady {
			return c
		}
	}
	t.Fatalf("no condition %s in %v", runtimeapi.RuntimeReady, resp)
	return nil
}

// TestAbsentHandler: a handler whose binary is missing, or does not work, stops
// neither the daemon nor the other handlers, and works once its binary does.
func TestAbsentHandler(t *testing.T) {
	each(t, func(t *testing.T, env *testenv.Env) {
		notForPeers(t)
		missing, broken := filepath.Join(env.Dir, "missing"), script(t, env.Dir, "broken", "echo out of order >&2; exit 1")
		configure(t, env, fmt.Sprintf("[runtimes.missing]\npath = %q\n[runtimes.broken]\npath = %q\n[runtimes.not-in-path]\n", missing, broken))
		wantEqual(t, "RuntimeReady", runtimeReady(t, env).GetStatus(), true)
		problems := verboseStatus(t, env, "problems")
		for handler, says := range map[string]string{"missing": missing, "broken": "out of order", "not-in-path": "not found"} {
			wantContains(t, "problems", problems, says)
			prompt(t, handler, 20*time.Second, func() {
				_, err := env.Runtime.RunPodSandbox(env.Context(), &runtimeapi.RunPodSandboxRequest{Config: env.PodConfig("x"), RuntimeHandler: handler})
				wantCode(t, handler, err, codes.FailedPrecondition)
				wantContains(t, handler, fmt.Sprint(err), says)
			})
		}
		env.RunPod(env.PodConfig("other"))

		binary := testenv.Program(t, env.RuntimeName)
		copyFile(t, binary, missing)
		fixed := filepath.Join(env.Dir, "fixed")
		copyFile(t, binary, fixed)
		rename(t, fixed, broken)
		for _, handler := range []string{"missing", "broken"} {
			runWith(t, env, env.PodConfig(handler), handler)
			if strings.Contains(verboseStatus(t, env, "problems"), filepath.Join(env.Dir, handler)) {
				t.Errorf("handler %s is still among the problems", handler)
			}
		}
	})
}

// TestAbsentDefaultHandler: the daemon starts without it and says so.
func TestAbsentDefaultHandler(t *testing.T) {
	each(t, func(t *testing.T, env *testenv.Env) {
		notForPeers(t)
		env.Pull(testenv.Busybox)
		path := filepath.Join(env.Dir, "later")
		configure(t, env, fmt.Sprintf("[runtimes.%s]\npath = %q\n", env.RuntimeName, path))
		c := runtimeReady(t, env)
		wantEqual(t, "RuntimeReady", c.GetStatus(), false)
		wantContains(t, "message", c.GetMessage(), path)
		wantContains(t, "reason", c.GetReason(), "Runtime")
		_, err := env.Runtime.RunPodSandbox(env.Context(), &runtimeapi.RunPodSandboxRequest{Config: env.PodConfig("x")})
		wantCode(t, "RunPodSandbox", err, codes.FailedPrecondition)

		whole := path + ".new"
		copyFile(t, testenv.Program(t, env.RuntimeName), whole)
		rename(t, whole, path)
		env.Eventually("RuntimeReady", func() error {
			if c := runtimeReady(t, env); !c.GetStatus() {
				return fmt.Errorf("%v", c)
			}
			return nil
		})
		_, id := runIn(env, env.PodConfig("pod"), "main")
		wantEqual(t, "exec", env.Exec(id, "echo hi"), "hi\n")
	})
}

// TestRuntimeGone: pods whose runtime's binary has gone, or has broken, are
// stopped and removed without it.
func TestRuntimeGone(t *testing.T) {
	each(t, func(t *testing.T, env *testenv.Env) {
		notForPeers(t)
		env.Pull(testenv.Busybox)
		for name, lose := range map[string]func(binary string){
			"missing": func(binary string) { rename(t, binary, binary+".hidden") },
			"broken":  func(binary string) { rename(t, script(t, env.Dir, "new", "exit 1"), binary) },
			"missing, and a new daemon": func(binary string) {
				rename(t, binary, binary+".hidden")
				env.Kill9()
				env.StartDaemon()
			},
			"not configured either": func(binary string) {
				rename(t, binary, binary+".hidden")
				configure(t, env, "")
			},
		} {
			t.Run(name, func(t *testing.T) { testRuntimeGone(t, env, lose) })
		}
	})
}

func testRuntimeGone(t *testing.T, env *testenv.Env, lose func(binary string)) {
	bin, root := filepath.Join(env.Dir, "gone"), filepath.Join(env.RunRoot, "gone-root")
	copyFile(t, testenv.Program(t, env.RuntimeName), bin+".new")
	rename(t, bin+".new", bin)
	configure(t, env, fmt.Sprintf("[runtimes.gone]\npath = %q\nroot = %q\n", bin, root))
	config := env.PodConfig("pod")
	pod := runWith(t, env, config, "gone")
	ids := map[string]string{}
	for _, name := range []string{"polite", "deaf", "removed", "left"} {
		trap := map[string]string{"polite": "trap 'exit 7' TERM", "deaf": "trap '' TERM"}[name]
		c := env.ContainerConfig(name, trap+"\necho ready; while :; do sleep 0.1; done")
		ids[name] = env.Run(pod, c, config)
		env.WaitLog(filepath.Join(config.LogDirectory, name+".log"), "ready")
	}
	created := env.Create(pod, env.ContainerConfig("created", "true"), config)
	ended := env.Run(pod, env.ContainerConfig("ended", "true"), config)
	env.WaitExit(ended)

	lose(bin)
	_, err := env.Runtime.CreateContainer(env.Context(), &runtimeapi.CreateContainerRequest{
		PodSandboxId: pod, Config: env.ContainerConfig("late", "true"), SandboxConfig: config,
	})
	wantCode(t, "CreateContainer", err, codes.FailedPrecondition)
	_, err = env.Runtime.ExecSync(env.Context(), &runtimeapi.ExecSyncRequest{ContainerId: ids["left"], Cmd: []string{"true"}})
	wantNotOK(t, "ExecSync", err)
	env.Stop(ids["polite"], 20*time.Second)
	wantEqual(t, "exit code of the trap", env.Status(ids["polite"]).ExitCode, 7)
	env.Stop(ids["deaf"], time.Second)
	wantEqual(t, "exit code of the killed", env.Status(ids["deaf"]).ExitCode, 137)
	for _, id := range []string{ids["polite"], ids["removed"], created, ended} {
		env.Remove(id)
	}
	env.StopPod(pod)
	wantEqual(t, "state of the last", env.Status(ids["left"]).State, runtimeapi.ContainerState_CONTAINER_EXITED)
	env.RemovePod(pod)
	left, err := filepath.Glob(filepath.Join(root, "????????????*"))
	if err != nil || len(left) != 0 {
		t.Errorf("the runtime's root holds %v, %v", left, err)
	}
	if _, err := os.Stat(filepath.Join(env.RunRoot, "pods", pod)); err == nil {
		t.Error("the pod's directory is still there")
	}
}
