package crash

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/test/images"
	"github.com/gantry-cri/gantry/test/testenv"
)

var shared = &testenv.Images{Sets: []images.Set{images.Demo}}

func TestMain(m *testing.M) {
	if task := os.Getenv(tracerVariable); task != "" {
		if err := traceMain(task); err != nil {
			fmt.Fprintln(os.Stderr, "tracer:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(testenv.Main(m, shared))
}

// An operation is a call that is made again after the daemon died in it.
type operation struct {
	name string
	// prepare makes what the call needs.
	prepare func(s *scene)
	// call makes the call, and makes it again.
	call func(s *scene, ctx context.Context) error
	// check looks at what the retried call left.
	check func(s *scene)
}

// A scene is what one try of an operation works on.
type scene struct {
	t         *testing.T
	env       *testenv.Env
	config    *runtimeapi.PodSandboxConfig
	container *runtimeapi.ContainerConfig
	pod, ctr  string
}

func operations() []operation {
	nothing := func(*scene) {}
	return []operation{
		{"RunPodSandbox", nothing, (*scene).runPod, func(s *scene) {
			s.create()
			s.start()
			s.works()
		}},
		{"CreateContainer", (*scene).havePod, (*scene).createContainer, func(s *scene) {
			s.start()
			s.works()
		}},
		{"StartContainer", (*scene).haveCreated, (*scene).startContainer, func(s *scene) {
			s.ready()
			s.works()
		}},
		{"UpdateContainerResources", (*scene).haveStarted, (*scene).update, (*scene).works},
		{"ReopenContainerLog", (*scene).haveStarted, (*scene).reopen, (*scene).works},
		{"StopContainer", (*scene).haveStarted, (*scene).stopContainer, (*scene).hasExited},
		{"RemoveContainer", (*scene).haveStarted, (*scene).removeContainer, nothing},
		{"StopPodSandbox", (*scene).haveStarted, (*scene).stopPod, (*scene).hasExited},
		{"RemovePodSandbox", (*scene).haveStarted, (*scene).removePod, nothing},
		{"PullImage", (*scene).haveNoImage, (*scene).pull, func(s *scene) {
			s.havePod()
			s.create()
			s.start()
			s.works()
		}},
	}
}

// TestKillAtSideEffects kills the daemon before side effects of each call,
// starts it again and repeats the call: it succeeds, what it is about works,
// and once the pod is removed nothing is left of it.
//
// GANTRY_TEST_CRASH_POINTS says how many side effects of each call are tried:
// a number, or "all".
func TestKillAtSideEffects(t *testing.T) {
	seed := seed(t)
	each(t, func(t *testing.T, env *testenv.Env) {
		env.Pull(testenv.Busybox)
		rng := rand.New(rand.NewPCG(seed, 0))
		kills, total := 0, 0
		for _, op := range operations() {
			n := op.try(t, env, 0)
			total += n
			for _, at := range choose(t, rng, n) {
				op.try(t, env, at)
				kills++
			}
		}
		t.Logf("%d kills at %d side effects of %d calls", kills, total, len(operations()))
	})
}

// try makes a call once, with the daemon killed before side effect at; 0 is
// after the call. It returns how many side effects were seen.
func (op operation) try(t *testing.T, env *testenv.Env, at int) (count int) {
	t.Helper()
	name := fmt.Sprintf("%s-%d", op.name, at)
	s := &scene{t: t, env: env, config: env.PodConfig(name)}
	s.container = env.ContainerConfig("main", "trap 'exit 3' TERM; echo ready; while :; do sleep 0.05; done")
	op.prepare(s)
	tr := trace(t, env.DaemonPID(), at)
	ctx, cancel := context.WithTimeout(env.Context(), 30*time.Second)
	first := op.call(s, ctx)
	cancel()
	count, before := tr.end(t)
	where := fmt.Sprintf("%s, killed before its side effect %d (%s)", op.name, at, before)
	if before == "" && first != nil {
		t.Errorf("%s, not killed: %v", op.name, first)
	}
	env.Kill9() // if it has not been; reaped in any case
	env.StartDaemon()
	if err := op.call(s, env.Context()); err != nil {
		t.Errorf("%s: the retry: %v", where, err)
	}
	op.check(s)
	env.RemoveAll()
	env.CheckLeaks()
	if t.Failed() {
		t.Fatalf("that was %s", where)
	}
	return count
}

// choose picks side effects from 1 to n.
func choose(t *testing.T, rng *rand.Rand, n int) []int {
	t.Helper()
	all := make([]int, n)
	for i := range all {
		all[i] = i + 1
	}
	points := os.Getenv("GANTRY_TEST_CRASH_POINTS")
	if points == "all" {
		return all
	}
	most := 3
	if points != "" {
		var err error
		if most, err = strconv.Atoi(points); err != nil {
			t.Fatalf("GANTRY_TEST_CRASH_POINTS: %v", err)
		}
	}
	rng.Shuffle(n, func(i, j int) { all[i], all[j] = all[j], all[i] })
	chosen := all[:min(most, n)]
	slices.Sort(chosen)
	return chosen
}

// seed is GANTRY_TEST_SEED, or one that is told.
func seed(t *testing.T) uint64 {
	t.Helper()
	seed := rand.Uint64()
	if text := os.Getenv("GANTRY_TEST_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("GANTRY_TEST_SEED: %v", err)
		}
	}
	t.Logf("GANTRY_TEST_SEED=%d", seed)
	return seed
}
