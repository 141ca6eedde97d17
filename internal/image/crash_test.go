package image

import (
	"context"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gantry-cri/gantry/internal/storage"
)

const (
	killsEnv = "GANTRY_TEST_PULL_KILLS" // how many; 12 if it is not set
	crashEnv = "GANTRY_TEST_PULL_DIR"
)

// TestKillInMidPull kills a process at random points of its start, and of
// pulls, removals and moving tags. From what each left the next one starts:
// every image that it lists is whole, one that was complete before is there,
// what was temporary is gone, no mount is left, and every image comes by a
// pull.
func TestKillInMidPull(t *testing.T) {
	kills, rng, w := numberFrom(t, killsEnv, 12), seeded(t), newWorld(t)
	ctx, stop := context.WithCancel(t.Context())
	var mover sync.WaitGroup
	mover.Go(func() { w.move(ctx, rand.New(rand.NewPCG(1, 1))) })
	defer mover.Wait()
	defer stop()
	var all outcome
	dir, fresh := "", true
	for n := range kills {
		if fresh = n%4 == 0; fresh {
			dir = filepath.Join(t.TempDir(), "store")
			must(t, os.MkdirAll(dir, 0o755))
			write(t, dir, "registries.conf", insecure(w.reg.host))
		}
		w.kill(t, dir, time.Duration(rng.Int64N(int64(700*time.Millisecond))))
		if mounts, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(mounts), dir) {
			t.Errorf("mounts left: %v\n%s", err, mounts)
		}
		out := w.check(t, dir, !fresh)
		all.whole, all.absent, all.reclaimed = all.whole+out.whole, all.absent+out.absent, all.reclaimed+out.reclaimed
		if t.Failed() {
			t.Fatalf("kill %d", n)
		}
	}
	t.Logf("%d kills: %d images found whole, %d absent, %d bytes reclaimed", kills, all.whole, all.absent, all.reclaimed)
}

// kill runs churn in a process of its own for so long.
func (w *world) kill(t *testing.T, dir string, after time.Duration) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), crashEnv+"="+dir, crashEnv+"_REGISTRY="+w.reg.host)
	cmd.Stderr = os.Stderr
	must(t, cmd.Start())
	time.Sleep(after)
	if err := cmd.Process.Kill(); err != nil {
		t.Errorf("it ended by itself: %v", err)
	}
	_ = cmd.Wait() // killed
}

// churnUntilKilled is the body of the process that TestKillInMidPull kills.
func churnUntilKilled(dir, host string) {
	store, err := storage.Open(storage.Options{Root: filepath.Join(dir, "root"), RunRoot: filepath.Join(dir, "run")})
	if err != nil {
		panic(err)
	}
	s, err := New(Options{
		Store: store, TempDir: filepath.Join(dir, "root/tmp"), RegistriesConf: filepath.Join(dir, "registries.conf"),
		CertsDir: filepath.Join(dir, "certs.d"), RegistriesDir: filepath.Join(dir, "registries.d"),
	})
	if err != nil {
		panic(err)
	}
	var workers sync.WaitGroup
	for range 3 {
		workers.Go(func() {
			if err := churn(context.Background(), s, host, rand.Uint64()); err != nil {
				panic(err)
			}
		})
	}
	workers.Wait()
}
