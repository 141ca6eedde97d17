package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	imgspec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantry-cri/gantry/internal/errkind"
	"github.com/gantry-cri/gantry/internal/id"
	"github.com/gantry-cri/gantry/internal/storage"
)

// world is a registry with a few images that share layers, and what is in
// them. The first image is never removed.
type world struct {
	reg    *fakeRegistry
	images []testImage
	layers map[digest.Digest]map[string][32]byte // by diffID: the content of each file
}

const worldImages = 5

// movingTag is one that is of another image every now and then.
const movingTag = "/moving:latest"

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{reg: newFake(t), layers: map[digest.Digest]map[string][32]byte{}}
	base := w.layer(t, 60, 0)
	for i := range worldImages {
		raws := [][]byte{base, w.layer(t, 40, 1+i), w.layer(t, 3, 100+i)}
		var blobs [][]byte
		var diffIDs []digest.Digest
		for _, raw := range raws {
			blobs, diffIDs = append(blobs, gzipped(t, raw)), append(diffIDs, digest.FromBytes(raw))
		}
		img := imageOfLayers(t, blobs, diffIDs)
		if i >= worldImages-2 { // the last has most of what the one before it has
			raw := w.layer(t, 40, worldImages, i)
			blob, annotations := chunkedBlob(t, raw)
			blobs[1], diffIDs[1] = blob, digest.FromBytes(raw)
			img = changed(t, imageOfLayers(t, blobs, diffIDs), func(m *imgspec.Manifest) { m.Layers[1].Annotations = annotations })
		}
		w.images = append(w.images, img)
		w.reg.put(fmt.Sprintf("img%d", i), "1", w.images[i])
	}
	w.reg.put("moving", "latest", w.images[0])
	return w
}

// layer makes an archive with so many files of up to 64 KiB for each seed.
func (w *world) layer(t testing.TB, files int, seeds ...int) []byte {
	t.Helper()
	content := map[string][32]byte{}
	var members []member
	for _, seed := range seeds {
		rng := rand.New(rand.NewPCG(uint64(seed), 1))
		for i := range files {
			body := make([]byte, rng.IntN(64<<10))
			for j := range body {
				body[j] = byte(rng.Uint32())
			}
			name := fmt.Sprintf("l%d/d%d/e%d/f%d", seed, i%7, i%3, i)
			members = append(members, member{name: name, body: string(body)})
			content[name] = sha256.Sum256(body)
		}
	}
	raw := archiveOf(t, members...)
	w.layers[digest.FromBytes(raw)] = content
	return raw
}

// wanted are the names that a pull must be able to bring.
func (w *world) wanted() []string {
	var names []string
	for i := range worldImages {
		names = append(names, fmt.Sprintf("%s/img%d:1", w.reg.host, i))
	}
	return append(names, w.reg.host+movingTag)
}

// move gives the moving tag to another image again and again, until ctx ends.
func (w *world) move(ctx context.Context, rng *rand.Rand) {
	for ctx.Err() == nil {
		w.reg.put("moving", "latest", w.images[rng.IntN(worldImages)])
		time.Sleep(20 * time.Millisecond)
	}
}

// churn pulls and removes images of the registry at host until ctx ends.
func churn(ctx context.Context, s *Service, host string, seed uint64) error {
	rng := rand.New(rand.NewPCG(seed, 2))
	for ctx.Err() == nil {
		name := fmt.Sprintf("%s/img%d:1", host, rng.IntN(worldImages))
		var err error
		switch rng.IntN(4) {
		case 0:
			if !strings.HasSuffix(name, "/img0:1") {
				err = s.Remove(ctx, name)
			}
		case 1:
			name = host + movingTag
			fallthrough
		default:
			_, err = s.Pull(ctx, PullRequest{Image: name})
		}
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// outcome is what a look at a store after a crash has seen.
type outcome struct {
	whole, absent int
	reclaimed     int64 // bytes
}

// check opens the store in dir as a daemon does that starts. Every image that
// is listed must be whole, the first image must be there if kept says so, what
// was temporary must go, and every image must come by a pull.
func (w *world) check(t *testing.T, dir string, kept bool) (out outcome) {
	t.Helper()
	before := usedBytes(t, dir)
	conf := write(t, t.TempDir(), "registries.conf", insecure(w.reg.host))
	s := openService(t, dir, func(o *Options) { o.RegistriesConf = conf })
	defer s.close(t)
	must(t, s.store.Reclaim(func(id.Container) bool { return false }))
	if p := s.store.Problems(); len(p) != 0 {
		t.Errorf("problems: %v", p)
	}
	for _, img := range s.List() {
		w.checkImage(t, s, img)
	}
	out.whole = len(s.List())
	out.absent = worldImages - out.whole
	if _, err := s.Resolve(w.wanted()[0]); kept && err != nil {
		t.Errorf("an image that was on the disk is gone: %v", err)
	}
	w.checkClean(t, s)
	out.reclaimed = before - usedBytes(t, dir)
	for _, name := range w.wanted() {
		w.checkImage(t, s, s.pull(t, name))
	}
	if len(s.List()) != worldImages {
		t.Errorf("%d images after the pulls", len(s.List()))
	}
	w.checkClean(t, s)
	return out
}

// checkImage compares every file of an image with its archive.
func (w *world) checkImage(t *testing.T, s *testService, img storage.Image) {
	t.Helper()
	if damaged, err := s.Damaged(t.Context(), img); err != nil || len(damaged) != 0 {
		t.Errorf("image %s %v: damaged layers %v, %v", img.ID, img.Names, damaged, err)
	}
	driver, err := s.store.Library().GraphDriver()
	must(t, err)
	diffIDs := img.Config.RootFS.DiffIDs
	for i, layer := range img.Layers {
		meta, err := driver.Metadata(layer)
		must(t, err)
		want, have := w.layers[diffIDs[len(diffIDs)-1-i]], 0
		err = filepath.WalkDir(meta["UpperDir"], func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			body, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			name, err := filepath.Rel(meta["UpperDir"], path)
			if err == nil && sha256.Sum256(body) != want[name] {
				err = fmt.Errorf("%s: %d bytes that are not its content (all null: %v)", name, len(body), bytes.Count(body, []byte{0}) == len(body))
			}
			have++
			return err
		})
		if err != nil || have != len(want) {
			t.Errorf("image %s %v: layer %s has %d files, want %d: %v", img.ID, img.Names, layer, have, len(want), err)
		}
	}
}

// checkClean checks that a store has nothing but the layers of its images.
func (w *world) checkClean(t *testing.T, s *testService) {
	t.Helper()
	needed := map[string]bool{}
	for _, img := range s.List() {
		for _, l := range img.Layers {
			needed[l] = true
		}
	}
	root := filepath.Join(s.dir, "root")
	count := func(pattern string) int {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		must(t, err)
		return len(found)
	}
	tidy := func() error {
		layers, err := s.store.Library().Layers()
		if err != nil || len(layers) != len(needed) {
			return fmt.Errorf("%d layers, want %d: %w", len(layers), len(needed), err)
		}
		if n := count("storage/overlay/" + strings.Repeat("[0-9a-f]", 64)); n != len(needed) {
			return fmt.Errorf("%d directories of layers, want %d", n, len(needed))
		}
		if n := count("storage/overlay/l/*"); n != len(needed) {
			return fmt.Errorf("%d links to layers, want %d", n, len(needed))
		}
		for _, pattern := range []string{"staging/*", "containers/.trash/*", "damaged/*", "unsynced/*", "../run/naming/*", "tmp/blobs/*", "removed/*"} {
			if n := count(pattern); n != 0 {
				return fmt.Errorf("%d left in %s", n, pattern)
			}
		}
		return nil
	}
	var err error
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) { // some of it goes in the background
		if err = tidy(); err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("not tidy: %v", err)
			return
		}
	}
}

// usedBytes is what is below dir.
func usedBytes(t *testing.T, dir string) (n int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil {
			n += info.Size()
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // something is being removed
		t.Fatal(err)
	}
	return n
}

// during runs workers of churn while f runs.
func (w *world) during(t *testing.T, s *Service, rng *rand.Rand, f func()) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { w.move(ctx, rand.New(rand.NewPCG(1, 1))) })
	for range 3 {
		seed := rng.Uint64()
		wg.Go(func() {
			if err := churn(ctx, s, w.reg.host, seed); err != nil && errkind.Of(err) != errkind.Timeout {
				t.Error(err)
			}
		})
	}
	f()
	stop()
	wg.Wait()
}
