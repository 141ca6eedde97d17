package integration

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/test/testenv"
)

// TestRotationUnderLoad: a log is rotated again and again while the container
// writes as fast as it can, and the daemon is killed in the middle of it, once
// between the rename and the reopening. No line is lost, doubled or cut.
func TestRotationUnderLoad(t *testing.T) {
	withPod(t, func(t *testing.T, env *testenv.Env, pod string, podConfig podSandboxConfig) {
		const lines = 1000000
		config := env.ContainerConfig("main", fmt.Sprintf("seq 1 %d; printf end", lines))
		id := env.Run(pod, config, podConfig)
		file := filepath.Join(podConfig.LogDirectory, "main.log")
		var files []string
		for i := range 6 {
			if env.Status(id).State != runtimeapi.ContainerState_CONTAINER_RUNNING {
				break // it was faster; what was rotated is checked all the same
			}
			rotated := fmt.Sprintf("%s.%d", file, i)
			if err := os.Rename(file, rotated); errors.Is(err, fs.ErrNotExist) && i > 0 {
				break // the output has ended, and so nothing was opened again
			} else if err != nil {
				t.Fatal(err)
			}
			files = append(files, rotated)
			if i%3 == 1 {
				env.Kill9()
				env.StartDaemon()
			}
			_, err := env.Runtime.ReopenContainerLog(env.Context(), &runtimeapi.ReopenContainerLogRequest{ContainerId: id})
			if err != nil && env.Status(id).State == runtimeapi.ContainerState_CONTAINER_RUNNING {
				t.Fatalf("ReopenContainerLog: %v", err)
			}
		}
		env.WaitExit(id)
		if _, err := os.Stat(file); err == nil {
			files = append(files, file)
		}
		var got strings.Builder
		for _, f := range files {
			got.WriteString(logLines(t, f)["stdout"])
		}
		n := 0
		for line := range strings.Lines(strings.TrimSuffix(got.String(), "end")) {
			if n++; line != fmt.Sprintf("%d\n", n) {
				t.Fatalf("line %d is %q", n, line)
			}
		}
		wantEqual(t, "lines", n, lines)
		wantEqual(t, "the last line, without a newline, is there", strings.HasSuffix(got.String(), "\nend"), true)
	})
}

// mountLogDisk gives a log directory a disk of 1 MiB until unmount is called,
// which is before the environment is checked for mounts that are left.
func mountLogDisk(t *testing.T, dir string) (unmount func()) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("log-disk", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}
}

// TestFullLogDisk: a full log disk neither ends the container nor blocks it; it
// is told in the verbose status, by the next daemon too, and is over by itself
// when there is room again.
func TestFullLogDisk(t *testing.T) {
	withPod(t, func(t *testing.T, env *testenv.Env, pod string, podConfig podSandboxConfig) {
		notForPeers(t)
		defer mountLogDisk(t, podConfig.LogDirectory)()
		filler := filepath.Join(podConfig.LogDirectory, "filler")
		if err := os.WriteFile(filler, make([]byte, 700<<10), 0o644); err != nil {
			t.Fatal(err)
		}
		config := env.ContainerConfig("main", "echo first; i=0; while :; do echo $i $i $i $i $i $i $i $i; i=$((i+1)); [ $((i%200)) -ne 0 ] || sleep 0.01; done")
		id := env.Run(pod, config, podConfig)
		wantProblem(t, env, id, true)
		env.Kill9()
		env.StartDaemon()
		wantProblem(t, env, id, true)
		wantEqual(t, "state", env.Status(id).State, runtimeapi.ContainerState_CONTAINER_RUNNING)
		wantEqual(t, "exec", env.Exec(id, "echo yes"), "yes\n")

		file := filepath.Join(podConfig.LogDirectory, "main.log")
		before := size(t, file)
		if err := errors.Join(os.Remove(filler), unix.Mount("", podConfig.LogDirectory, "", unix.MS_REMOUNT, "size=64m")); err != nil {
			t.Fatal(err)
		}
		env.Eventually("the log to grow again", func() error {
			if now := size(t, file); now <= before {
				return fmt.Errorf("it has %d bytes", now)
			}
			return nil
		})
		wantProblem(t, env, id, false)
		env.Stop(id, 0)
		if got := logLines(t, file)["stdout"]; !strings.HasPrefix(got, "first\n0 0 0 0 0 0 0 0\n") {
			t.Errorf("the log begins with %.40q", got)
		}
	})
}

// TestFullLogDiskOfSilentContainer: what a full disk did to a log is over once
// there is room, even if the container writes nothing more.
func TestFullLogDiskOfSilentContainer(t *testing.T) {
	withPod(t, func(t *testing.T, env *testenv.Env, pod string, podConfig podSandboxConfig) {
		notForPeers(t)
		defer mountLogDisk(t, podConfig.LogDirectory)()
		id := env.Run(pod, env.ContainerConfig("main", "seq 1 200000; touch /silent; exec sleep 1000"), podConfig)
		wantProblem(t, env, id, true)
		env.Exec(id, "while [ ! -e /silent ]; do sleep 0.1; done; sleep 0.5")
		before := size(t, filepath.Join(podConfig.LogDirectory, "main.log"))
		if err := unix.Mount("", podConfig.LogDirectory, "", unix.MS_REMOUNT, "size=64m"); err != nil {
			t.Fatal(err)
		}
		wantProblem(t, env, id, false)
		wantEqual(t, "size of the log", size(t, filepath.Join(podConfig.LogDirectory, "main.log")), before)
		env.Stop(id, 0)
	})
}

func size(t *testing.T, file string) int64 {
	t.Helper()
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

// wantProblem waits until the verbose status tells, or does not tell, of the
// container's log.
func wantProblem(t *testing.T, env *testenv.Env, container string, want bool) {
	t.Helper()
	env.Eventually(fmt.Sprintf("a problem in the status: %v", want), func() error {
		resp, err := env.Runtime.Status(env.Context(), &runtimeapi.StatusRequest{Verbose: true})
		if err == nil && strings.Contains(resp.Info["problems"], container) != want {
			err = fmt.Errorf("it says %s", resp.Info["problems"])
		}
		return err
	})
}

// TestJournal: with a journal configured it gets the output, and says whose it is.
func TestJournal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	env := testenv.Start(t, testenv.Options{Registry: shared.Registry(t), Config: fmt.Sprintf("journal_socket = %q\n", path)})
	notForPeers(t)
	env.Pull(testenv.Busybox)
	config := env.PodConfig("pod")
	pod := env.RunPod(config)
	id := env.Run(pod, env.ContainerConfig("main", "echo to the journal; sleep 1000"), config)
	if err := conn.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1<<16)
	n, err := conn.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"to the journal", id, pod, "POD_NAMESPACE", "CONTAINER_NAME", "PRIORITY=6\n"} {
		wantContains(t, "message", string(buf[:n]), want)
	}
	env.WaitLog(filepath.Join(config.LogDirectory, "main.log"), "to the journal")
}
