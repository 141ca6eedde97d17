package crash

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/test/testenv"
)

const deaf = "trap '' TERM; echo ready; while :; do sleep 0.05; done"

// runDeaf runs a container that ignores its stop signal.
func runDeaf(env *testenv.Env, pod, name string, config *runtimeapi.PodSandboxConfig) string {
	id := env.Run(pod, env.ContainerConfig(name, deaf), config)
	env.WaitLog(filepath.Join(config.LogDirectory, name+".log"), "ready")
	return id
}

// stopIn stops a container and returns how long that took.
func stopIn(env *testenv.Env, id string, grace time.Duration) (time.Duration, error) {
	start := time.Now()
	_, err := env.Runtime.StopContainer(env.Context(), &runtimeapi.StopContainerRequest{ContainerId: id, Timeout: int64(grace / time.Second)})
	return time.Since(start), err
}

// TestShorterGraceWins: of two stops the one that ends first kills, and both
// return then.
func TestShorterGraceWins(t *testing.T) {
	each(t, func(t *testing.T, env *testenv.Env) {
		env.Pull(testenv.Busybox)
		config := env.PodConfig("pod")
		pod := env.RunPod(config)
		id := runDeaf(env, pod, "main", config)
		type result struct {
			took time.Duration
			err  error
		}
		long := make(chan result, 1)
		go func() {
			took, err := stopIn(env, id, 50*time.Second)
			long <- result{took, err}
		}()
		select {
		case r := <-long:
			t.Fatalf("a container that ignores its signal was stopped after %s: %v", r.took, r.err)
		case <-time.After(500 * time.Millisecond): // the long one has begun
		}
		took, err := stopIn(env, id, time.Second)
		if err != nil || took < 900*time.Millisecond || took > 20*time.Second {
			t.Errorf("the short stop: %v after %s", err, took)
		}
		if r := <-long; r.err != nil || r.took > 25*time.Second {
			t.Errorf("the long stop: %v after %s", r.err, r.took)
		}
		wantCode(t, "the container", env.WaitExit(id), 137)
	})
}

// TestStopIsNotDelayed: not by an exec that does not end, nor by an attached
// client that reads nothing, nor by a log that nobody takes.
func TestStopIsNotDelayed(t *testing.T) {
	each(t, func(t *testing.T, env *testenv.Env) {
		env.Pull(testenv.Busybox)
		config := env.PodConfig("pod")
		pod := env.RunPod(config)
		id := env.Run(pod, env.ContainerConfig("main", "trap 'exit 3' TERM; echo ready; while :; do echo output; done"), config)
		env.WaitLog(filepath.Join(config.LogDirectory, "main.log"), "ready")
		var execs sync.WaitGroup
		for range 3 {
			execs.Go(func() {
				_, err := env.Runtime.ExecSync(env.Context(), &runtimeapi.ExecSyncRequest{
					ContainerId: id, Cmd: []string{"sh", "-c", "trap '' TERM HUP INT; touch /tmp/here$$; while :; do sleep 0.1; done"},
				})
				if err != nil {
					t.Logf("an exec in a container that was stopped: %v", err)
				}
			})
		}
		env.Eventually("the execs to begin", func() error {
			if found, _ := filepath.Glob(filepath.Join(env.Root, "containers", id, "upper/tmp/here*")); len(found) != 3 {
				return fmt.Errorf("there are %v", found)
			}
			return nil
		})
		stuck := attachAndReadNothing(t, env, id)
		defer stuck()
		stop := watch(t, env, "stuck execs and clients", pod, id)
		took, err := stopIn(env, id, 60*time.Second)
		if err != nil || took > 20*time.Second {
			t.Errorf("stop: %v after %s", err, took)
		}
		wantCode(t, "the container", env.WaitExit(id), 3)
		execs.Wait()
		stop()
	})
}

// attachAndReadNothing runs a client of the container's output that is stopped.
func attachAndReadNothing(t *testing.T, env *testenv.Env, id string) (end func()) {
	t.Helper()
	cmd := exec.Command(testenv.Binary(t, "crictl"), "--runtime-endpoint", "unix://"+env.Socket, "attach", id)
	out, err := cmd.StdoutPipe() // never read: the client is stuck in its first writes
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	one := make([]byte, 1)
	if _, err := out.Read(one); err != nil {
		t.Fatalf("attach: %v", err)
	}
	return func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
	}
}

// TestStoppedAndFrozen: a container whose processes are stopped, or whose cgroup
// is frozen, is ended like any other.
func TestStoppedAndFrozen(t *testing.T) {
	each(t, func(t *testing.T, env *testenv.Env) {
		env.Pull(testenv.Busybox)
		config := env.PodConfig("pod")
		pod := env.RunPod(config)
		still := runDeaf(env, pod, "stopped", config)
		signalInit(t, still, unix.SIGSTOP)
		frozen := runDeaf(env, pod, "frozen", config)
		freeze(t, initOf(t, frozen))
		other := runDeaf(env, pod, "frozen-too", config)
		freeze(t, initOf(t, other))
		stop := watch(t, env, "stopped and frozen containers", pod, still)
		for name, id := range map[string]string{"stopped": still, "frozen": frozen} {
			took, err := stopIn(env, id, time.Second)
			t.Logf("a %s container ended after %s", name, took.Round(time.Millisecond))
			if err != nil || took > 25*time.Second {
				t.Errorf("stop of the %s container: %v after %s", name, err, took)
			}
			wantCode(t, name, env.WaitExit(id), 137)
		}
		stop()
		env.StopPod(pod) // with a container that is frozen still
	})
}

// freeze freezes the cgroup of a process.
func freeze(t *testing.T, pid int) {
	t.Helper()
	path, v2 := cgroupOf(t, pid, "freezer")
	file, text := "freezer.state", "FROZEN"
	if v2 {
		file, text = "cgroup.freeze", "1"
	}
	if err := os.WriteFile(filepath.Join(path, file), []byte(text), 0); err != nil {
		t.Fatal(err)
	}
}

// TestUninterruptible: a process that no signal ends is told, not waited for for
// ever; lists don't wait; and when it can end, its pod can be removed.
func TestUninterruptible(t *testing.T) {
	o := testenv.Options{Mount: func(env *testenv.Env) error {
		dir := filepath.Join(env.Dir, "freezing")
		return errors.Join(os.Mkdir(dir, 0o755), ext4()(env, dir))
	}}
	one(t, o, func(t *testing.T, env *testenv.Env) {
		env.Pull(testenv.Busybox)
		dir := filepath.Join(env.Dir, "freezing")
		config := env.PodConfig("pod")
		pod := env.RunPod(config)
		c := env.ContainerConfig("main", "while [ ! -e /tmp/go ]; do sleep 0.05; done; exec dd if=/dev/zero of=/mnt/file bs=1k count=1")
		c.Mounts = []*runtimeapi.Mount{{HostPath: dir, ContainerPath: "/mnt"}}
		id := env.Run(pod, c, config)
		bystander := runDeaf(env, pod, "bystander", config)
		thaw := freezeDisk(t, dir)
		defer thaw()
		env.Exec(id, "touch /tmp/go")
		env.Eventually("the process to be in uninterruptible sleep", func() error {
			if state := stateOf(t, initOf(t, id)); state != "D" {
				return fmt.Errorf("it is in state %s", state)
			}
			return nil
		})
		stop := watch(t, env, "a process in uninterruptible sleep", pod, id)
		took, err := stopIn(env, id, time.Second)
		t.Logf("after %s: %v", took.Round(time.Millisecond), err)
		if status.Code(err) != codes.DeadlineExceeded || took > 50*time.Second {
			t.Errorf("stop: %v after %s", err, took)
		}
		ctx, cancel := context.WithTimeout(env.Context(), 5*time.Second)
		_, err = env.Runtime.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: pod})
		cancel()
		if status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("stop of the pod: %v", err)
		}
		wantCode(t, "the other container of the pod", env.WaitExit(bystander), 137)
		stop()
		thaw()
		if code := env.WaitExit(id).ExitCode; code != 137 && code != 143 { // it has got both signals
			t.Errorf("exit code %d", code)
		}
		env.RemovePod(pod)
	})
}

// freezeDisk makes everything that writes to a file system wait until the
// returned function is called.
func freezeDisk(t *testing.T, dir string) (thaw func()) {
	t.Helper()
	const freeze, unfreeze = 0xc0045877, 0xc0045878 // FIFREEZE, FITHAW
	f, err := os.Open(dir)
	if err == nil {
		err = unix.IoctlSetInt(int(f.Fd()), freeze, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	return sync.OnceFunc(func() {
		if err := errors.Join(unix.IoctlSetInt(int(f.Fd()), unfreeze, 0), f.Close()); err != nil {
			t.Error(err)
		}
	})
}

// TestStrays: what somebody else has put into a pod's cgroup, or below, ends
// with the pod.
func TestStrays(t *testing.T) {
	each(t, func(t *testing.T, env *testenv.Env) {
		env.Pull(testenv.Busybox)
		config := env.PodConfig("pod")
		pod := env.RunPod(config)
		id := env.Run(pod, env.ContainerConfig("main", "sleep 1000"), config)
		inContainer, inPod, below := stray(t), stray(t), stray(t)
		own, _ := cgroupOf(t, initOf(t, id), "memory")
		join(t, own, inContainer)
		join(t, filepath.Dir(own), inPod)
		deeper := filepath.Join(filepath.Dir(own), "deeper", "still")
		if err := os.MkdirAll(deeper, 0o755); err != nil {
			t.Fatal(err)
		}
		join(t, deeper, below)
		env.StopPod(pod)
		for name, p := range map[string]*strayProcess{"in the container's cgroup": inContainer, "in the pod's": inPod, "below the pod's": below} {
			select {
			case <-p.ended:
			case <-time.After(20 * time.Second):
				t.Errorf("a process %s lives on", name)
			}
		}
		env.RemovePod(pod)
	})
}

type strayProcess struct {
	pid   int
	ended chan struct{}
}

func stray(t *testing.T) *strayProcess {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &strayProcess{cmd.Process.Pid, make(chan struct{})}
	go func() {
		_ = cmd.Wait() // it is killed
		close(p.ended)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it should have ended
		<-p.ended
	})
	return p
}

func join(t *testing.T, cgroup string, p *strayProcess) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(cgroup, "cgroup.procs"), []byte(strconv.Itoa(p.pid)), 0); err != nil {
		t.Fatal(err)
	}
}
