package crash

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/test/testenv"
)

// What TestLoad does unless GANTRY_TEST_LOAD_PODS and GANTRY_TEST_LOAD_TIME say.
const (
	loadPods    = 20
	loadTime    = 20 * time.Second
	loadCallers = 20
)

// TestLoad: pods come and go in waves, with many callers at once and probes in
// every container all the time. No call fails; the daemon's descriptors, memory
// and goroutines don't grow from wave to wave, and nothing is left. Then the
// daemon is killed with all pods: the next one has them all at once.
func TestLoad(t *testing.T) {
	pods, limit := loadSize(t)
	one(t, testenv.Options{}, func(t *testing.T, env *testenv.Env) {
		env.Pull(testenv.Busybox)
		l := &load{env: env, pods: pods}
		l.wave(t) // what is made once is made
		env.CheckLeaks()
		before := insideOf(t, env)
		t.Logf("%d pods, after the first wave: %s", pods, before)
		stop := watch(t, env, "load", "", "")
		waves := 0
		for end := time.Now().Add(limit); waves < 2 || time.Now().Before(end); waves++ {
			l.wave(t)
			t.Logf("wave %d: %s", waves+1, insideOf(t, env))
		}
		stop()
		t.Logf("%d waves, %d probes", waves, l.probes.Load())
		env.CheckLeaks()
		wantNoGrowth(t, env, before)
		l.up(t)
		restartWith(t, env, pods)
		l.down(t)
	})
}

func loadSize(t *testing.T) (pods int, limit time.Duration) {
	t.Helper()
	pods, limit = loadPods, loadTime
	var err error
	if text := os.Getenv("GANTRY_TEST_LOAD_PODS"); text != "" {
		if pods, err = strconv.Atoi(text); err != nil {
			t.Fatalf("GANTRY_TEST_LOAD_PODS: %v", err)
		}
	}
	if text := os.Getenv("GANTRY_TEST_LOAD_TIME"); text != "" {
		if limit, err = time.ParseDuration(text); err != nil {
			t.Fatalf("GANTRY_TEST_LOAD_TIME: %v", err)
		}
	}
	return pods, limit
}

type load struct {
	env    *testenv.Env
	pods   int
	made   int
	ids    []string // of the pods that are up
	ctrs   []string // their containers
	probes atomic.Int64
}

func (l *load) wave(t *testing.T) {
	t.Helper()
	l.up(t)
	l.probe(t)
	l.down(t)
}

// together does something for each of n, with loadCallers callers at a time.
func together(t *testing.T, what string, n int, do func(i int) error) {
	t.Helper()
	jobs := make(chan int)
	var callers sync.WaitGroup
	var mu sync.Mutex // guards failed
	var failed error
	for range loadCallers {
		callers.Go(func() {
			for i := range jobs {
				if err := do(i); err != nil {
					mu.Lock()
					failed = errors.Join(failed, err)
					mu.Unlock()
				}
			}
		})
	}
	for i := range n {
		jobs <- i
	}
	close(jobs)
	callers.Wait()
	if failed != nil {
		t.Fatalf("%s: %v", what, failed)
	}
}

// patient is how long a call under load may take.
func patient() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), 4*time.Minute)
}

func (l *load) up(t *testing.T) {
	t.Helper()
	l.ids, l.ctrs = make([]string, l.pods), make([]string, l.pods)
	l.made++
	together(t, "pods up", l.pods, func(i int) error {
		ctx, cancel := patient()
		defer cancel()
		config := l.env.PodConfig(fmt.Sprintf("pod%d-%d", l.made, i))
		pod, err := l.env.Runtime.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: config})
		if err != nil {
			return err
		}
		ctr, err := l.env.Runtime.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{
			PodSandboxId: pod.PodSandboxId, Config: l.env.ContainerConfig("main", "echo up; exec sleep 100000"), SandboxConfig: config,
		})
		if err != nil {
			return err
		}
		l.ids[i], l.ctrs[i] = pod.PodSandboxId, ctr.ContainerId
		_, err = l.env.Runtime.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: ctr.ContainerId})
		return err
	})
}

func (l *load) probe(t *testing.T) {
	t.Helper()
	together(t, "probes", 2*l.pods, func(i int) error {
		ctx, cancel := patient()
		defer cancel()
		l.probes.Add(1)
		resp, err := l.env.Runtime.ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: l.ctrs[i%l.pods], Cmd: []string{"echo", "probe"}, Timeout: 120})
		if err == nil && (resp.ExitCode != 0 || string(resp.Stdout) != "probe\n") {
			err = fmt.Errorf("a probe: exit code %d, %q, %q", resp.ExitCode, resp.Stdout, resp.Stderr)
		}
		return err
	})
}

func (l *load) down(t *testing.T) {
	t.Helper()
	together(t, "pods down", l.pods, func(i int) error {
		ctx, cancel := patient()
		defer cancel()
		if _, err := l.env.Runtime.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: l.ids[i]}); err != nil {
			return err
		}
		_, err := l.env.Runtime.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: l.ids[i]})
		return err
	})
}

// An amount is what the daemon has of the machine.
type amount struct {
	descriptors int
	threads     int
	memory      int // private anonymous memory, KiB
}

func (a amount) String() string {
	return fmt.Sprintf("%d descriptors, %d threads, %d KiB of its own", a.descriptors, a.threads, a.memory)
}

func insideOf(t *testing.T, env *testenv.Env) (a amount) {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/", env.DaemonPID())
	a.descriptors = len(names(t, dir+"fd"))
	a.threads = len(names(t, dir+"task"))
	f, err := os.Open(dir + "smaps_rollup")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), "Anonymous:"); ok {
			if a.memory, err = strconv.Atoi(strings.Fields(rest)[0]); err != nil {
				t.Fatal(err)
			}
		}
	}
	return a
}

// wantNoGrowth: memory is given back in time, and threads of the Go runtime stay
// for ever, but a leak for each pod would be more than is allowed here.
func wantNoGrowth(t *testing.T, env *testenv.Env, before amount) {
	t.Helper()
	env.Eventually("the daemon to have no more than before", func() error {
		now := insideOf(t, env)
		if now.descriptors > before.descriptors || now.memory > before.memory+16<<10 {
			return fmt.Errorf("%s, before: %s", now, before)
		}
		return nil
	})
}

// restartWith kills the daemon and starts it with all pods.
func restartWith(t *testing.T, env *testenv.Env, pods int) {
	t.Helper()
	env.Kill9()
	begin := time.Now()
	env.StartDaemon()
	list, err := env.Runtime.ListPodSandbox(env.Context(), &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		t.Fatal(err)
	}
	ctrs, err := env.Runtime.ListContainers(env.Context(), &runtimeapi.ListContainersRequest{})
	if err != nil {
		t.Fatal(err)
	}
	took := time.Since(begin)
	t.Logf("all of %d pods and containers listed %s after the start of the daemon", pods, took.Round(time.Millisecond))
	if len(list.Items) != pods || len(ctrs.Containers) != pods {
		t.Errorf("%d pods and %d containers listed, there are %d", len(list.Items), len(ctrs.Containers), pods)
	}
	for _, p := range list.Items {
		if p.State != runtimeapi.PodSandboxState_SANDBOX_READY {
			t.Errorf("pod %s is %s", p.Id, p.State)
		}
	}
	for _, c := range ctrs.Containers {
		if c.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
			t.Errorf("container %s is %s", c.Id, c.State)
		}
	}
	if took > 20*time.Second { // a second, on a machine that does nothing else
		t.Errorf("that is %s", took)
	}
}
