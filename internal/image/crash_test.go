package image

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gantry-cri/gantry/internal/id"
	"github.com/gantry-cri/gantry/internal/storage"
)

// TestKillInMidPull kills the process at random points of a pull. Whatever it
// left: the image is absent or whole, the next pull succeeds, and nothing
// else stays.
func TestKillInMidPull(t *testing.T) {
	reg := newFake(t)
	src := buildImage(t, nil, 3<<20, 1<<20, 100, 100)
	reg.put("app", "1", src)
	name := reg.host + "/app:1"
	rounds, whole := 12, 0
	for range rounds {
		dir := t.TempDir()
		conf := write(t, dir, "registries.conf", insecure(reg.host))
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), crashEnv+"="+dir, crashEnv+"_IMAGE="+name)
		cmd.Stderr = os.Stderr
		must(t, cmd.Start())
		timer := time.AfterFunc(rand.N(600*time.Millisecond), func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait() // killed, by the timer or by itself
		timer.Stop()

		if mounts, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(mounts), dir) {
			t.Errorf("mounts left: %v\n%s", err, mounts)
		}
		s := openService(t, dir, func(o *Options) { o.RegistriesConf = conf })
		must(t, s.store.Reclaim(func(id.Container) bool { return true }))
		if p := s.store.Problems(); len(p) != 0 {
			t.Errorf("problems: %v", p)
		}
		if len(s.List()) == 1 {
			whole++
			s.checkWhole(t, s.List()[0]) // perhaps without its tag
		}
		s.checkWhole(t, s.pull(t, name))
		if layers, err := s.store.Library().Layers(); err != nil || len(layers) != 4 {
			t.Errorf("%d layers, %v", len(layers), err)
		}
		dirs, err := filepath.Glob(filepath.Join(dir, "root/storage/overlay/????????????????????????????????????????????????????????????????"))
		if err != nil || len(dirs) != 4 {
			t.Errorf("%d layer directories, %v", len(dirs), err)
		}
		if blobs, _ := os.ReadDir(filepath.Join(dir, "root/tmp/blobs")); len(blobs) != 0 {
			t.Errorf("blobs left: %v", blobs)
		}
		s.close(t)
	}
	t.Logf("whole after %d of %d kills", whole, rounds)
}

func (s *testService) checkWhole(t *testing.T, img storage.Image) {
	t.Helper()
	r, err := s.store.CreateRootFS(id.NewContainer(), img.ID, storage.RootFSOptions{})
	must(t, err)
	for path, size := range map[string]int{"/layer0": 3 << 20, "/layer1": 1 << 20, "/layer2": 100, "/layer3": 100} {
		if body, err := s.store.ReadFile(r, path, 4<<20); err != nil || len(body) != size {
			t.Errorf("%s: %d bytes, %v", path, len(body), err)
		}
	}
	must(t, s.store.RemoveRootFS(r.Container))
}
