package integration

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/test/testenv"
)

// TestBusPaused: while the system's own bus answers nobody, what needs systemd
// fails within its deadline; nothing is left frozen; and when the bus goes on, so
// does everything. No test runs beside it: it would wait for the bus, too.
func TestBusPaused(t *testing.T) {
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		t.Skip("for machines with systemd; others have TestSystemdDoesNotAnswer")
	}
	bus := mainPID(t, "dbus.service")
	o := testenv.Options{CgroupManager: testenv.Systemd, Config: "runtime_timeout = \"10s\"\n"}
	eachAlone(t, o, func(t *testing.T, env *testenv.Env) {
		notForPeers(t)
		env.Pull(testenv.Busybox)
		config := env.PodConfig("pod")
		pod, id := runIn(env, config, "main")

		resume := pauseProcess(t, bus)
		failsInTime(t, "a pod", func() error {
			_, err := env.Runtime.RunPodSandbox(env.Context(), &runtimeapi.RunPodSandboxRequest{Config: env.PodConfig("late")})
			return err
		})
		failsInTime(t, "a container", func() error {
			_, err := env.Runtime.CreateContainer(env.Context(), &runtimeapi.CreateContainerRequest{
				PodSandboxId: pod, Config: env.ContainerConfig("late", "sleep 1000"), SandboxConfig: config,
			})
			return err
		})
		failsInTime(t, "an update", func() error { return update(env, id, &resources{CpuQuota: 50000, CpuPeriod: 100000}) })
		wantEqual(t, "a running container, meanwhile", env.Exec(id, "echo here"), "here\n")
		resume()

		for _, file := range []string{"cgroup.freeze", "freezer.state"} {
			nothingFrozen(t, env, file)
		}
		wantCode(t, "an update afterwards", update(env, id, &resources{CpuQuota: 60000, CpuPeriod: 100000}), codes.OK)
		wantContains(t, "limits", limitsOf(t, initPID(t, id)), "cpu 60000 100000")
		late := env.Run(pod, env.ContainerConfig("late", "sleep 1000"), config)
		wantEqual(t, "a container afterwards", env.Exec(late, "echo here"), "here\n")
		_, other := runIn(env, env.PodConfig("late"), "main")
		wantEqual(t, "a pod afterwards", env.Exec(other, "echo here"), "here\n")
	})
}

// failsInTime fails the test unless a call that needs systemd ends with
// DeadlineExceeded, within the time of two calls of a runtime.
func failsInTime(t *testing.T, what string, call func() error) {
	t.Helper()
	prompt(t, what+" without the bus", 40*time.Second, func() {
		wantCode(t, what+" without the bus", call(), codes.DeadlineExceeded)
	})
}

// nothingFrozen fails the test for each cgroup of the environment's that is frozen.
func nothingFrozen(t *testing.T, env *testenv.Env, file string) {
	t.Helper()
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.Name() != file || !strings.Contains(path, env.CgroupParent) {
			return nil
		}
		state, err := os.ReadFile(path)
		if text := strings.TrimSpace(string(state)); err == nil && text != "0" && text != "THAWED" {
			t.Errorf("%s: %s", path, text)
		}
		return nil
	})
}

// mainPID returns the process of a service of systemd.
func mainPID(t *testing.T, unit string) int {
	t.Helper()
	out, err := exec.Command("systemctl", "show", "--property=MainPID", "--value", unit).Output()
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err == nil && pid == 0 {
		err = errors.New("it does not run")
	}
	if err != nil {
		t.Fatalf("%s: %v", unit, err)
	}
	return pid
}

// pauseProcess stops a process until the function that it returns is called, or
// the test ends.
func pauseProcess(t *testing.T, pid int) (resume func()) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(fmt.Errorf("stop process %d: %w", pid, err))
	}
	resume = func() {
		if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
			t.Errorf("let process %d go on: %v", pid, err)
		}
	}
	t.Cleanup(resume)
	return resume
}
