package crash

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/test/testenv"
)

// impatient is how many callers make the same request at the same time.
const impatient = 12

// TestRetries: the same request made again and again, by several callers at once
// who each wait from 10 ms to 5 s, makes one pod and one container of it. No
// caller is told that a name is taken.
func TestRetries(t *testing.T) {
	seed := seed(t)
	each(t, func(t *testing.T, env *testenv.Env) {
		env.Pull(testenv.Busybox)
		rng := rand.New(rand.NewPCG(seed, 0))
		for i := range 3 {
			config := env.PodConfig(fmt.Sprintf("pod%d", i))
			if err := os.MkdirAll(config.LogDirectory, 0o755); err != nil {
				t.Fatal(err)
			}
			pod, gaveUp := insistTogether(t, rng, func(ctx context.Context) (string, error) {
				resp, err := env.Runtime.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: config})
				return resp.GetPodSandboxId(), err
			})
			ctr, gaveUp2 := insistTogether(t, rng, func(ctx context.Context) (string, error) {
				resp, err := env.Runtime.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{
					PodSandboxId: pod, Config: env.ContainerConfig("main", "sleep 1000"), SandboxConfig: config,
				})
				return resp.GetContainerId(), err
			})
			t.Logf("%d callers, %d and %d calls whose deadline passed", impatient, gaveUp, gaveUp2)
			env.Start(ctr)
			wantCounts(t, env, 1, 1)
			env.RemovePod(pod)
		}
	})
}

// insistTogether has many callers make the same call until it answers them. It
// returns the one answer that all must get, and how many calls were given up.
func insistTogether(t *testing.T, rng *rand.Rand, call func(context.Context) (string, error)) (id string, gaveUp int) {
	t.Helper()
	type result struct {
		id     string
		gaveUp int
		err    error
	}
	results := make(chan result, impatient)
	for range impatient {
		seed := rng.Uint64()
		go func() {
			rng := rand.New(rand.NewPCG(seed, 0))
			var r result
			for give := time.Now().Add(2 * time.Minute); ; r.gaveUp++ {
				ctx, cancel := context.WithTimeout(context.Background(), patience(rng))
				r.id, r.err = call(ctx)
				cancel()
				if status.Code(r.err) != codes.DeadlineExceeded || time.Now().After(give) {
					break
				}
			}
			results <- r
		}()
	}
	for range impatient {
		r := <-results
		gaveUp += r.gaveUp
		switch {
		case r.err != nil:
			t.Errorf("a caller got %v", r.err)
		case id == "":
			id = r.id
		case id != r.id:
			t.Errorf("callers got %s and %s", id, r.id)
		}
	}
	if id == "" {
		t.FailNow()
	}
	return id, gaveUp
}

// patience is from 10 ms to 5 s, as often short as long.
func patience(rng *rand.Rand) time.Duration {
	return time.Duration(float64(10*time.Millisecond) * math.Pow(500, rng.Float64()))
}

// wantCounts checks how many pods and containers are listed.
func wantCounts(t *testing.T, env *testenv.Env, pods, containers int) {
	t.Helper()
	p, err := env.Runtime.ListPodSandbox(env.Context(), &runtimeapi.ListPodSandboxRequest{})
	if err != nil || len(p.Items) != pods {
		t.Errorf("%d pods instead of %d: %v, %v", len(p.GetItems()), pods, p, err)
	}
	c, err := env.Runtime.ListContainers(env.Context(), &runtimeapi.ListContainersRequest{})
	if err != nil || len(c.Containers) != containers {
		t.Errorf("%d containers instead of %d: %v, %v", len(c.GetContainers()), containers, c, err)
	}
}

// TestWorkOutlivesItsCaller: what a caller has begun comes to its end though
// that caller goes away meanwhile and nobody asks again.
func TestWorkOutlivesItsCaller(t *testing.T) {
	each(t, func(t *testing.T, env *testenv.Env) {
		env.Pull(testenv.Busybox)
		config := env.PodConfig("pod")
		leave(t, env, "pods/*", func(ctx context.Context) error {
			_, err := env.Runtime.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: config})
			return err
		})
		var pod string
		env.Eventually("the pod to be ready", func() error {
			list, err := env.Runtime.ListPodSandbox(env.Context(), &runtimeapi.ListPodSandboxRequest{})
			if err == nil && (len(list.Items) != 1 || list.Items[0].State != runtimeapi.PodSandboxState_SANDBOX_READY) {
				err = fmt.Errorf("there is %v", list.Items)
			}
			if err == nil {
				pod = list.Items[0].Id
			}
			return err
		})
		if err := os.MkdirAll(config.LogDirectory, 0o755); err != nil {
			t.Fatal(err)
		}
		leave(t, env, "pods/*/containers/*", func(ctx context.Context) error {
			_, err := env.Runtime.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{
				PodSandboxId: pod, Config: env.ContainerConfig("main", "trap 'touch /tmp/asked; sleep 1; exit 4' TERM; echo ready; while :; do sleep 0.05; done"), SandboxConfig: config,
			})
			return err
		})
		ctr := awaitContainer(t, env, runtimeapi.ContainerState_CONTAINER_CREATED)
		env.Start(ctr)
		env.WaitLog(filepath.Join(config.LogDirectory, "main.log"), "ready")
		leave(t, env, "../root/containers/*/upper/tmp/asked", func(ctx context.Context) error {
			_, err := env.Runtime.StopContainer(ctx, &runtimeapi.StopContainerRequest{ContainerId: ctr, Timeout: 30})
			return err
		})
		if got := env.WaitExit(ctr).ExitCode; got != 4 {
			t.Errorf("exit code %d of a container that was asked to end", got)
		}
	})
}

// leave makes a call and goes away as soon as there is something in the run root
// that the pattern fits.
func leave(t *testing.T, env *testenv.Env, pattern string, call func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(env.Context())
	left := make(chan error, 1)
	go func() { left <- call(ctx) }()
	env.Eventually("the call to begin", func() error {
		if found, err := filepath.Glob(filepath.Join(env.RunRoot, pattern)); err != nil || len(found) == 0 {
			return fmt.Errorf("%s: there is none", pattern)
		}
		return nil
	})
	cancel()
	if err := <-left; err != nil && status.Code(err) != codes.Canceled { // it may have been faster
		t.Errorf("a call that was left: %v", err)
	}
}

// awaitContainer waits for the one container to be in a state.
func awaitContainer(t *testing.T, env *testenv.Env, want runtimeapi.ContainerState) (id string) {
	t.Helper()
	env.Eventually("the container to be "+want.String(), func() error {
		list, err := env.Runtime.ListContainers(env.Context(), &runtimeapi.ListContainersRequest{})
		if err != nil {
			return err
		}
		if len(list.Containers) != 1 || list.Containers[0].State != want {
			return fmt.Errorf("there is %v", list.Containers)
		}
		id = list.Containers[0].Id
		return nil
	})
	return id
}
