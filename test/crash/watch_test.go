package crash

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/test/testenv"
)

// look is one call that must never wait for a fault of a pod.
type look func(ctx context.Context) error

// looksAt are the lists and the node's status, and the status of the pod and the
// container, where they are named: they must exist as long as is looked.
func looksAt(env *testenv.Env, pod, ctr string) []look {
	all := []look{
		func(ctx context.Context) error {
			_, err := env.Runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
			return err
		},
		func(ctx context.Context) error {
			_, err := env.Runtime.ListContainers(ctx, &runtimeapi.ListContainersRequest{})
			return err
		},
		func(ctx context.Context) error {
			_, err := env.Runtime.Status(ctx, &runtimeapi.StatusRequest{Verbose: true})
			return err
		},
		func(ctx context.Context) error {
			_, err := env.Runtime.ListPodSandboxStats(ctx, &runtimeapi.ListPodSandboxStatsRequest{})
			return err
		},
	}
	if pod != "" {
		all = append(all, func(ctx context.Context) error {
			_, err := env.Runtime.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: pod})
			return err
		})
	}
	if ctr != "" {
		all = append(all, func(ctx context.Context) error {
			_, err := env.Runtime.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: ctr})
			return err
		})
	}
	return all
}

// lookLimit is what no look takes, on however busy a machine, unless it waits
// for something.
const lookLimit = 15 * time.Second

// watch looks again and again while the test brings a fault about, until the
// returned function is called; that logs how long the looks took.
func watch(t *testing.T, env *testenv.Env, fault, pod, ctr string) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var took []time.Duration
	var failed error
	var looking sync.WaitGroup
	looking.Go(func() {
		for ctx.Err() == nil && failed == nil {
			for _, look := range looksAt(env, pod, ctr) {
				limited, end := context.WithTimeout(context.Background(), lookLimit)
				start := time.Now()
				failed = errors.Join(failed, look(limited))
				end()
				took = append(took, time.Since(start))
			}
			select {
			case <-ctx.Done():
			case <-time.After(5 * time.Millisecond):
			}
		}
	})
	stopped := false
	stop = func() {
		t.Helper()
		if stopped {
			return
		}
		stopped = true
		cancel()
		looking.Wait()
		if failed != nil {
			t.Errorf("%s: a look meanwhile: %v", fault, failed)
		}
		report(t, fault, took)
	}
	t.Cleanup(stop)
	return stop
}

// report logs how long looks took. The median has a bound: on a machine that
// does much else the 99th percentile says how busy that is.
func report(t *testing.T, fault string, took []time.Duration) {
	t.Helper()
	if len(took) == 0 {
		return
	}
	slices.Sort(took)
	at := func(percent int) time.Duration { return took[(len(took)-1)*percent/100].Round(10 * time.Microsecond) }
	t.Logf("%s: %d looks, median %s, p99 %s, longest %s", fault, len(took), at(50), at(99), at(100))
	if at(50) > 50*time.Millisecond {
		t.Errorf("%s: looks take %s", fault, at(50))
	}
}
