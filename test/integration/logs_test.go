package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/test/testenv"
)

// logLines reads a log in the CRI format, checks the form of each line, and
// returns each stream's content with the partial lines put together:
// https://github.com/kubernetes/design-proposals-archive/blob/main/node/kubelet-cri-logging.md
func logLines(t *testing.T, file string) map[string]string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if len(data) > 0 && data[len(data)-1] != '\n' {
		t.Errorf("%s: the last line is not closed", file)
	}
	builders := map[string]*strings.Builder{}
	for line := range strings.Lines(string(data)) {
		parts := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 4)
		if len(parts) != 4 {
			t.Fatalf("%s: malformed line %.200q", file, line)
		}
		if _, err := time.Parse(time.RFC3339Nano, parts[0]); err != nil {
			t.Errorf("%s: %v", file, err)
		}
		b := builders[parts[1]]
		if b == nil {
			b = &strings.Builder{}
			builders[parts[1]] = b
		}
		b.WriteString(parts[3])
		switch parts[2] {
		case "F":
			b.WriteByte('\n')
		case "P":
		default:
			t.Errorf("%s: tag %q", file, parts[2])
		}
	}
	streams := map[string]string{}
	for stream, b := range builders {
		streams[stream] = b.String()
	}
	return streams
}

// TestLogs: both streams, long lines, empty lines, a last line without newline.
func TestLogs(t *testing.T) {
	withPod(t, func(t *testing.T, env *testenv.Env, pod string, podConfig *runtimeapi.PodSandboxConfig) {
		long := "head -c 100000 /dev/zero | tr '\\0' x; echo"
		id := env.Run(pod, env.ContainerConfig("main", "echo out; echo; echo err >&2; "+long+"; printf last"), podConfig)
		env.WaitExit(id)
		file := filepath.Join(podConfig.LogDirectory, "main.log")
		wantEqual(t, "log path in the status", env.Status(id).LogPath, file)
		env.WaitLog(file, "last")
		streams := logLines(t, file)
		wantEqual(t, "stderr", streams["stderr"], "err\n")
		want := "out\n\n" + strings.Repeat("x", 100000) + "\nlast"
		if got := streams["stdout"]; got != want {
			t.Errorf("stdout is %d bytes, want %d: %.40q…", len(got), len(want), got)
		}
	})
}

// TestPartialLine: output that waits for its newline is not held back for ever,
// and is one line when put together.
func TestPartialLine(t *testing.T) {
	withPod(t, func(t *testing.T, env *testenv.Env, pod string, podConfig *runtimeapi.PodSandboxConfig) {
		id := env.Run(pod, env.ContainerConfig("main", "printf one; sleep 0.3; printf two; sleep 0.3; echo three"), podConfig)
		env.WaitExit(id)
		file := filepath.Join(podConfig.LogDirectory, "main.log")
		env.WaitLog(file, "three")
		wantEqual(t, "stdout", logLines(t, file)["stdout"], "onetwothree\n")
	})
}

// TestReopenLog: after a rotation nothing is lost and new lines go to the new file.
func TestReopenLog(t *testing.T) {
	withPod(t, func(t *testing.T, env *testenv.Env, pod string, podConfig *runtimeapi.PodSandboxConfig) {
		id := env.Run(pod, env.ContainerConfig("main", "i=0; while :; do echo $i; i=$((i+1)); sleep 0.01; done"), podConfig)
		file := filepath.Join(podConfig.LogDirectory, "main.log")
		env.WaitLog(file, " 5\n")
		if err := os.Rename(file, file+".1"); err != nil {
			t.Fatal(err)
		}
		_, err := env.Runtime.ReopenContainerLog(env.Context(), &runtimeapi.ReopenContainerLogRequest{ContainerId: id})
		if err != nil {
			t.Fatalf("ReopenContainerLog: %v", err)
		}
		env.Eventually("lines in the new file", func() error {
			data, err := os.ReadFile(file)
			if err == nil && strings.Count(string(data), "\n") < 5 {
				err = fmt.Errorf("it holds %q", data)
			}
			return err
		})
		env.Stop(id, 0)
		all := logLines(t, file+".1")["stdout"] + logLines(t, file)["stdout"]
		for i, line := range strings.Fields(all) {
			if line != fmt.Sprint(i) {
				t.Fatalf("line %d is %q", i, line)
			}
		}
		_, err = env.Runtime.ReopenContainerLog(env.Context(), &runtimeapi.ReopenContainerLogRequest{ContainerId: id})
		wantNotOK(t, "reopen the log of a container that has ended", err)
	})
}
