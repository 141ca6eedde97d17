package integration

import (
	"os/exec"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/test/testenv"
)

// withContainer gives a test a running container.
func withContainer(t *testing.T, test func(t *testing.T, env *testenv.Env, container string)) {
	t.Helper()
	withPod(t, func(t *testing.T, env *testenv.Env, pod string, config *runtimeapi.PodSandboxConfig) {
		test(t, env, env.Run(pod, env.ContainerConfig("main", "sleep 1000"), config))
	})
}

func execSync(env *testenv.Env, container string, timeout int64, args ...string) (*runtimeapi.ExecSyncResponse, error) {
	return env.Runtime.ExecSync(env.Context(), &runtimeapi.ExecSyncRequest{ContainerId: container, Cmd: args, Timeout: timeout})
}

// TestExecSync: output on both streams, the exit code, and what can't run.
func TestExecSync(t *testing.T) {
	withContainer(t, func(t *testing.T, env *testenv.Env, container string) {
		resp, err := execSync(env, container, 10, "sh", "-c", "echo out; echo err >&2; exit 5")
		if err != nil {
			t.Fatal(err)
		}
		wantEqual(t, "stdout", string(resp.Stdout), "out\n")
		wantEqual(t, "stderr", string(resp.Stderr), "err\n")
		wantEqual(t, "exit code", resp.ExitCode, 5)

		resp, err = execSync(env, container, 0, "sh", "-c", "kill -9 $$")
		if err != nil {
			t.Fatal(err)
		}
		wantEqual(t, "exit code of a killed command", resp.ExitCode, 137)

		resp, err = execSync(env, container, 10, "/no/such/program")
		if err == nil && resp.ExitCode == 0 {
			t.Error("a program that does not exist ran well")
		}
		_, err = execSync(env, container, 10)
		wantNotOK(t, "no command", err)

		env.Stop(container, 0)
		_, err = execSync(env, container, 10, "true")
		wantNotOK(t, "exec in a container that has ended", err)
	})
}

// TestExecSyncTimeout: the whole tree of processes is killed, promptly.
func TestExecSyncTimeout(t *testing.T) {
	withContainer(t, func(t *testing.T, env *testenv.Env, container string) {
		prompt(t, "exec with a timeout of one second", 4*time.Second, func() {
			_, err := execSync(env, container, 1, "sh", "-c", "(setsid sleep 4711 &) ; sleep 4711 & sleep 4711")
			wantCode(t, "exec that takes too long", err, codes.DeadlineExceeded)
		})
		if testenv.Peer() {
			return
		}
		env.Eventually("no process of the exec to be left", func() error {
			out, err := exec.Command("pgrep", "-f", "^sleep 4711").Output()
			if err == nil && processesIn(t, container, string(out)) {
				return errLeft(out)
			}
			return nil
		})
		wantEqual(t, "the container lives on", env.Exec(container, "echo yes"), "yes\n")
	})
}

type errLeft []byte

func (e errLeft) Error() string { return "left: " + strings.TrimSpace(string(e)) }

// processesIn reports whether one of the listed processes is of the container.
func processesIn(t *testing.T, container, pids string) bool {
	t.Helper()
	for _, word := range strings.Fields(pids) {
		pid := 0
		for _, digit := range word {
			pid = pid*10 + int(digit-'0')
		}
		if strings.Contains(readProc(t, pid, "cgroup"), container) {
			return true
		}
	}
	return false
}

// TestExecSyncOutputCap: a flood of output neither ends the daemon nor is lost
// without a word; the kubelet's limit is 16 MiB.
func TestExecSyncOutputCap(t *testing.T) {
	withContainer(t, func(t *testing.T, env *testenv.Env, container string) {
		resp, err := execSync(env, container, 30, "head", "-c", "40000000", "/dev/zero")
		if err != nil {
			wantCode(t, "exec that floods", err, codes.ResourceExhausted)
		} else if len(resp.Stdout) > 16<<20 {
			t.Errorf("got %d bytes of output, the cap is 16 MiB", len(resp.Stdout))
		}
		wantEqual(t, "the daemon lives on", env.Exec(container, "echo yes"), "yes\n")
	})
}
