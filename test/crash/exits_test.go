package crash

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/test/testenv"
)

// exits is how many containers TestExitCodes runs with each runtime, unless
// GANTRY_TEST_EXITS says.
const exits = 60

// exitWorkers is how many pods they run in, one at a time in each.
const exitWorkers = 4

// TestExitCodes runs short containers while the daemon is killed again and
// again: each exit code arrives, as it was, and stays; and what has ended is
// never shown running again.
func TestExitCodes(t *testing.T) {
	seed := seed(t)
	each(t, func(t *testing.T, env *testenv.Env) {
		env.Pull(testenv.Busybox)
		run := &exitRun{env: env, ended: map[string]int32{}}
		kills := run.killUntil(run.all(count(t)), rand.New(rand.NewPCG(seed, 0)))
		for _, err := range run.errs {
			t.Error(err)
		}
		t.Logf("%d containers ended as they should, the daemon was killed %d times", len(run.ended), kills)
	})
}

func count(t *testing.T) int {
	t.Helper()
	text := os.Getenv("GANTRY_TEST_EXITS")
	if text == "" {
		return exits
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("GANTRY_TEST_EXITS: %v", err)
	}
	return n
}

// exitRun is the containers of one runtime.
type exitRun struct {
	env *testenv.Env

	mu    sync.Mutex       // guards what follows
	ended map[string]int32 // container id to exit code, as first seen
	errs  []error
}

// all runs n containers, and closes the channel when they are over.
func (r *exitRun) all(n int) (over chan struct{}) {
	jobs := make(chan int)
	var workers sync.WaitGroup
	for i := range exitWorkers {
		config := r.env.PodConfig(fmt.Sprintf("pod%d", i))
		// Else the container's first process is one that no signal of its own kills.
		config.Linux.SecurityContext = &runtimeapi.LinuxSandboxSecurityContext{
			NamespaceOptions: &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_POD},
		}
		pod := r.env.RunPod(config)
		workers.Go(func() {
			for n := range jobs {
				if err := r.one(config, pod, n); err != nil {
					r.fail(err)
				}
			}
		})
	}
	over = make(chan struct{})
	go func() {
		for i := range n {
			jobs <- i
		}
		close(jobs)
		workers.Wait()
		close(over)
	}()
	return over
}

func (r *exitRun) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.errs = append(r.errs, err)
}

// killUntil kills the daemon and starts it again until over is closed, and
// looks at all containers after each start.
func (r *exitRun) killUntil(over <-chan struct{}, rng *rand.Rand) (kills int) {
	for {
		select {
		case <-over:
			return kills
		case <-time.After(time.Duration(rng.IntN(1500)) * time.Millisecond):
		}
		r.env.Kill9()
		r.env.StartDaemon()
		kills++
		if err := r.look(); err != nil {
			r.fail(err)
		}
	}
}

// look compares what is listed with what was seen before.
func (r *exitRun) look() error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	r.mu.Lock()
	before := len(r.ended)
	seen := make(map[string]bool, before)
	for id := range r.ended {
		seen[id] = true
	}
	r.mu.Unlock()
	list, err := r.env.Runtime.ListContainers(ctx, &runtimeapi.ListContainersRequest{})
	if err != nil {
		return fmt.Errorf("list: %w", err)
	}
	for _, c := range list.Containers {
		if seen[c.Id] && c.State != runtimeapi.ContainerState_CONTAINER_EXITED {
			return fmt.Errorf("container %s had ended and is %s", c.Id, c.State)
		}
	}
	return nil
}

// one runs a container whose exit code is known, and removes it.
func (r *exitRun) one(podConfig *runtimeapi.PodSandboxConfig, pod string, n int) error {
	script, want := ending(n)
	config := r.env.ContainerConfig(fmt.Sprintf("c%d", n), script)
	if err := os.MkdirAll(podConfig.LogDirectory, 0o755); err != nil {
		return err
	}
	var id string
	if err := r.insist("create", func(ctx context.Context) error {
		resp, err := r.env.Runtime.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: config, SandboxConfig: podConfig})
		id = resp.GetContainerId()
		return err
	}); err != nil {
		return err
	}
	if err := r.insist("start", func(ctx context.Context) error {
		status, err := r.status(ctx, id)
		if err != nil || status.State != runtimeapi.ContainerState_CONTAINER_CREATED {
			return err
		}
		_, err = r.env.Runtime.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: id})
		return err
	}); err != nil {
		return err
	}
	if err := r.await(id, script, want); err != nil {
		return err
	}
	return r.insist("remove", func(ctx context.Context) error {
		_, err := r.env.Runtime.RemoveContainer(ctx, &runtimeapi.RemoveContainerRequest{ContainerId: id})
		return err
	})
}

// ending is a way to end and the exit code that it has.
func ending(n int) (script string, code int32) {
	switch n % 5 {
	case 0:
		return "true", 0
	case 1:
		return "kill -KILL $$", 137
	case 2:
		return "kill -SEGV $$", 139
	case 3:
		return "sleep 0.3; exit 77", 77
	}
	return fmt.Sprintf("exit %d", n%256), int32(n % 256)
}

// await waits until the container has ended, and looks twice.
func (r *exitRun) await(id, script string, want int32) error {
	var status *runtimeapi.ContainerStatus
	deadline := time.Now().Add(2 * time.Minute)
	for status.GetState() != runtimeapi.ContainerState_CONTAINER_EXITED {
		if time.Now().After(deadline) {
			return fmt.Errorf("container %s (%s) does not end: %v", id, script, status)
		}
		if err := r.insist("status", func(ctx context.Context) (err error) {
			status, err = r.status(ctx, id)
			return err
		}); err != nil {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
	if status.ExitCode != want {
		return fmt.Errorf("container %s (%s): exit code %d (%s: %s), want %d", id, script, status.ExitCode, status.Reason, status.Message, want)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended[id] = status.ExitCode
	return nil
}

func (r *exitRun) status(ctx context.Context, id string) (*runtimeapi.ContainerStatus, error) {
	resp, err := r.env.Runtime.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: id})
	return resp.GetStatus(), err
}

// insist repeats a call, as the kubelet does, until it succeeds.
func (r *exitRun) insist(what string, call func(context.Context) error) error {
	deadline := time.Now().Add(2 * time.Minute)
	for {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		err := call(ctx)
		cancel()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s: %w", what, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// monitorOf finds the monitor of a pod.
func monitorOf(t *testing.T, pod string) int {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		body, err := os.ReadFile(file)
		if err != nil || !containsMonitor(string(body), pod) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err != nil {
			t.Fatal(err)
		}
		return pid
	}
	t.Fatalf("no monitor of pod %s", pod)
	return 0
}
