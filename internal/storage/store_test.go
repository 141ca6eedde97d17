package storage

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-cri/gantry/internal/errkind"
	"github.com/gantry-cri/gantry/internal/id"
)

const testName = "docker.io/library/test:1"

func testImage(t testing.TB, s *Store) Image {
	return addImage(t, s, testName,
		layerTar(t, entry{name: "./", kind: '5', mode: 0o750, uid: 3}, file("a", "1")),
		layerTar(t, file("b", "2")))
}

// eventually waits for what the background does.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("never: " + what)
		}
	}
}

func layerCount(t *testing.T, s *Store) int {
	t.Helper()
	layers, err := s.Library().Layers()
	if err != nil {
		t.Fatal(err)
	}
	return len(layers)
}

func TestRootFSLifecycle(t *testing.T) {
	s := newTest(t)
	img := testImage(t, s)
	ctr := id.NewContainer()
	r, err := s.CreateRootFS(ctr, img.ID, RootFSOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Lower) != 2 || !exists(filepath.Join(r.Lower[0], "b")) || !exists(filepath.Join(r.Lower[1], "a")) {
		t.Errorf("lower is not top first: %v", r.Lower)
	}
	again, err := s.CreateRootFS(ctr, img.ID, RootFSOptions{})
	if err != nil || again.Upper != r.Upper {
		t.Errorf("second create: %+v, %v", again, err)
	}
	opened, err := s.OpenRootFS(ctr, img.ID)
	if err != nil || !slices.Equal(opened.Lower, r.Lower) || opened.Upper != r.Upper || opened.Work != r.Work {
		t.Errorf("open: %+v, %v", opened, err)
	}
	for range 2 {
		if err := s.RemoveRootFS(ctr); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.OpenRootFS(ctr, img.ID); errkind.Of(err) != errkind.NotFound {
		t.Errorf("open after remove: %v", err)
	}
	eventually(t, "trash is empty", func() bool {
		entries, err := os.ReadDir(s.trashDir())
		return err == nil && len(entries) == 0
	})
}

func TestUpperLooksLikeImageRoot(t *testing.T) {
	s := newTest(t)
	r := newRootFS(t, s, addImage(t, s, testName, layerTar(t, entry{name: "./", kind: '5', mode: 0o750, uid: 3}, file("a", "1"))))
	var st unix.Stat_t
	if err := unix.Stat(r.Upper, &st); err != nil {
		t.Fatal(err)
	}
	if st.Mode&0o7777 != 0o750 || st.Uid != 3 {
		t.Errorf("mode %o, uid %d", st.Mode&0o7777, st.Uid)
	}
}

func TestRootFSBadArguments(t *testing.T) {
	s := newTest(t)
	img := testImage(t, s)
	if _, err := s.CreateRootFS("../../etc", img.ID, RootFSOptions{}); errkind.Of(err) != errkind.Invalid {
		t.Errorf("bad id: %v", err)
	}
	if err := s.RemoveRootFS("../../etc"); errkind.Of(err) != errkind.Invalid {
		t.Errorf("remove bad id: %v", err)
	}
	if _, err := s.CreateRootFS(id.NewContainer(), strings.Repeat("0", 64), RootFSOptions{}); errkind.Of(err) != errkind.NotFound {
		t.Errorf("unknown image: %v", err)
	}
	if _, err := s.OpenRootFS(id.NewContainer(), img.ID); errkind.Of(err) != errkind.NotFound {
		t.Errorf("unknown container: %v", err)
	}
}

func TestImageWithoutLayers(t *testing.T) {
	s := newTest(t)
	r := newRootFS(t, s, addImage(t, s, testName))
	if len(r.Lower) != 1 {
		t.Fatalf("lower: %v", r.Lower)
	}
	if err := s.EnsureDir(r, "/a"); err != nil {
		t.Error(err)
	}
}

func TestRemoveOfImageInUse(t *testing.T) {
	dir := t.TempDir()
	s := openTest(t, dir)
	img := testImage(t, s)
	r := newRootFS(t, s, img)
	if err := s.Remove(t.Context(), img.ID); err != nil {
		t.Fatal(err)
	}
	if len(s.Images().List()) != 0 {
		t.Error("still listed")
	}
	if _, err := s.CreateRootFS(id.NewContainer(), img.ID, RootFSOptions{}); errkind.Of(err) != errkind.NotFound {
		t.Errorf("usable for another container: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	s = openTest(t, dir) // the next daemon
	if len(s.Images().List()) != 0 || layerCount(t, s) != 2 {
		t.Errorf("after restart: %d images, %d layers", len(s.Images().List()), layerCount(t, s))
	}
	if err := s.Reclaim(func(id.Container) bool { return true }); err != nil {
		t.Error(err)
	}
	opened, err := s.OpenRootFS(r.Container, img.ID)
	if err != nil || !slices.Equal(opened.Lower, r.Lower) {
		t.Fatalf("open: %v, %v; want %v", opened.Lower, err, r.Lower)
	}
	if body, err := s.ReadFile(opened, "/a", 10); err != nil || string(body) != "1" {
		t.Errorf("read: %q, %v", body, err)
	}
	if err := s.RemoveRootFS(r.Container); err != nil {
		t.Fatal(err)
	}
	eventually(t, "layers go with the last container", func() bool { return layerCount(t, s) == 0 })
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestRemovedImageComesBackByPull(t *testing.T) {
	s := newTest(t)
	img := testImage(t, s)
	r := newRootFS(t, s, img)
	if err := s.Remove(t.Context(), img.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Adopt(img.ID, []string{testName}); err != nil { // what a pull ends with
		t.Fatal(err)
	}
	if err := s.RemoveRootFS(r.Container); err != nil {
		t.Fatal(err)
	}
	s.tasks.Wait()
	if _, ok := s.Images().ByName(testName); !ok || layerCount(t, s) != 2 {
		t.Error("deleted although it was pulled again")
	}
}

func TestRemoveIsIdempotentAndKeepsSharedLayers(t *testing.T) {
	s := newTest(t)
	base := layerTar(t, file("a", "1"))
	one := addImage(t, s, "docker.io/library/one:1", base)
	two := addImage(t, s, "docker.io/library/two:1", base, layerTar(t, file("b", "2")))
	for range 2 {
		if err := s.Remove(t.Context(), two.ID); err != nil {
			t.Fatal(err)
		}
	}
	if layerCount(t, s) != 1 {
		t.Errorf("%d layers", layerCount(t, s))
	}
	if err := s.Remove(t.Context(), one.ID); err != nil || layerCount(t, s) != 0 {
		t.Errorf("%v, %d layers", err, layerCount(t, s))
	}
}

func TestRemoveDuringTransferWaits(t *testing.T) {
	s := newTest(t)
	img := testImage(t, s)
	end := s.BeginTransfer()
	if err := s.Remove(t.Context(), img.ID); err != nil {
		t.Fatal(err)
	}
	if layerCount(t, s) != 2 || len(s.Images().List()) != 0 {
		t.Error("layers went under a transfer, or the name stayed")
	}
	end()
	if layerCount(t, s) != 0 {
		t.Error("layers stay")
	}
}

func TestReclaim(t *testing.T) {
	dir := t.TempDir()
	s := openTest(t, dir)
	img := testImage(t, s)
	kept, dropped := newRootFS(t, s, img), newRootFS(t, s, img)
	// What an interrupted pull leaves: a layer without an image, a directory
	// without a record, a blob.
	if _, _, err := s.Library().PutLayer("", "", nil, "", false, nil, strings.NewReader(string(layerTar(t, file("x", "y"))))); err != nil {
		t.Fatal(err)
	}
	stray := filepath.Join(s.graphRoot(), "overlay", string(id.NewContainer()))
	if err := os.MkdirAll(filepath.Join(stray, "diff"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	s = openTest(t, dir)
	defer s.Close()
	if err := s.Reclaim(func(c id.Container) bool { return c == kept.Container }); err != nil {
		t.Fatal(err)
	}
	if layerCount(t, s) != 2 {
		t.Errorf("%d layers, want 2", layerCount(t, s))
	}
	if !exists(kept.Upper) || exists(dropped.Upper) || exists(stray) {
		t.Errorf("kept %v, dropped %v, stray %v", exists(kept.Upper), exists(dropped.Upper), exists(stray))
	}
	if p := s.Problems(); len(p) != 0 {
		t.Error(p)
	}
}

func TestDamagedRecords(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, s *Store, img Image){
		"layer directory gone": func(t *testing.T, s *Store, img Image) {
			target, err := filepath.EvalSymlinks(img.lower[1])
			if err != nil {
				t.Fatal(err)
			}
			must(t, os.RemoveAll(filepath.Dir(target)))
		},
		"config changed": func(t *testing.T, s *Store, img Image) {
			must(t, filepath.WalkDir(filepath.Join(s.graphRoot(), "overlay-images", img.ID), func(path string, d fs.DirEntry, err error) error {
				if err != nil || d.IsDir() {
					return err
				}
				return os.WriteFile(path, []byte("{}"), 0o600)
			}))
		},
		"images.json cut": func(t *testing.T, s *Store, img Image) {
			must(t, os.Truncate(filepath.Join(s.graphRoot(), "overlay-images/images.json"), 20))
		},
		"layers.json cut": func(t *testing.T, s *Store, img Image) {
			must(t, os.Truncate(filepath.Join(s.graphRoot(), "overlay-layers/layers.json"), 20))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := openTest(t, dir)
			img := testImage(t, s)
			must(t, s.Close())
			damage(t, s, img)

			s = openTest(t, dir)
			defer s.Close()
			if len(s.Images().List()) != 0 || len(s.Problems()) == 0 {
				t.Errorf("listed %v, problems %v", s.Images().List(), s.Problems())
			}
			if err := s.Reclaim(func(id.Container) bool { return true }); err != nil {
				t.Error(err)
			}
			if again := testImage(t, s); again.ID != img.ID {
				t.Error("not stored again")
			}
			if _, err := s.ReadFile(newRootFS(t, s, img), "/a", 10); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestUsage(t *testing.T) {
	dir := t.TempDir()
	s := openTest(t, dir)
	img := addImage(t, s, testName, layerTar(t, file("a", strings.Repeat("x", 1<<20)), entry{name: "b", body: "a", kind: '1'}))
	eventually(t, "image measured", func() bool { return s.ImageUsage().Bytes >= 1<<20 })
	if u := s.ImageUsage(); u.Bytes > 1<<20+16<<10 || u.Inodes != 2 || u.At.IsZero() {
		t.Errorf("image: %+v", u)
	}
	if earlier := s.ImageUsage().At; !s.ImageUsage().At.After(earlier) {
		t.Error("what is known now is told as known earlier")
	}
	r := newRootFS(t, s, img)
	must(t, os.WriteFile(filepath.Join(r.Upper, "f"), make([]byte, 1<<16), 0o600))
	eventually(t, "container measured", func() bool {
		u, ok := s.ContainerUsage(r.Container)
		return ok && u.Bytes >= 1<<16 && u.Inodes == 2
	})
	eventually(t, "sum", func() bool { return s.ContainersUsage().Inodes == 2 })
	must(t, s.Close())

	s = openTest(t, dir)
	defer s.Close()
	if s.ImageUsage().Inodes != 2 {
		t.Error("forgotten by a restart")
	}
	must(t, s.Remove(t.Context(), img.ID))
	must(t, s.RemoveRootFS(r.Container))
	eventually(t, "nothing used", func() bool { return s.ImageUsage().Bytes == 0 && s.ContainersUsage().Bytes == 0 })
}

func TestNoMounts(t *testing.T) {
	dir := t.TempDir()
	s := openTest(t, dir)
	newRootFS(t, s, testImage(t, s))
	body, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	if strings.Contains(string(body), dir) {
		t.Errorf("mounted:\n%s", body)
	}
	must(t, s.Close())
}

func TestOneProcessPerRoot(t *testing.T) {
	dir := t.TempDir()
	s := openTest(t, dir)
	if _, err := Open(Options{Root: filepath.Join(dir, "root"), RunRoot: filepath.Join(dir, "run")}); errkind.Of(err) != errkind.Precondition {
		t.Errorf("second open: %v", err)
	}
	other := openTest(t, t.TempDir()) // another instance is no hindrance
	must(t, other.Close())
	must(t, s.Close())
	must(t, openTest(t, dir).Close())
}

// TestConcurrency has no expectation but the race detector's and that every
// root filesystem is of an image that is still there.
func TestConcurrency(t *testing.T) {
	s := newTest(t)
	layer := layerTar(t, file("a", "1"))
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 10 {
				img := addImageQuiet(s, t, layer)
				r, err := s.CreateRootFS(id.NewContainer(), img, RootFSOptions{})
				if errors.Is(err, fs.ErrNotExist) || errkind.Of(err) == errkind.NotFound {
					continue
				}
				if err != nil {
					t.Error(err)
					continue
				}
				_ = s.Remove(t.Context(), img)
				if _, err := s.ReadFile(r, "/a", 10); err != nil {
					t.Error(err)
				}
				if err := s.RemoveRootFS(r.Container); err != nil {
					t.Error(err)
				}
				s.Images().List()
			}
		})
	}
	wg.Wait()
	s.tasks.Wait()
}

func BenchmarkCreateRootFS(b *testing.B) {
	s := newTest(b)
	img := testImage(b, s)
	for b.Loop() {
		r, err := s.CreateRootFS(id.NewContainer(), img.ID, RootFSOptions{})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := s.ReadFile(r, "/a", 100); err != nil {
			b.Fatal(err)
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// TestUnfinishedMarker: a process that is killed while it writes one has
// recorded no layer.
func TestUnfinishedMarker(t *testing.T) {
	dir := t.TempDir()
	s := openTest(t, dir)
	testImage(t, s)
	must(t, s.Close())
	marker := filepath.Join(s.unsyncedDir(), "abc.tmp")
	must(t, os.WriteFile(marker, []byte(`{"vers`), 0o600))
	s = openTest(t, dir)
	defer s.Close()
	if p := s.Problems(); len(p) != 0 || len(s.Images().List()) != 1 || exists(marker) {
		t.Errorf("problems %v, %d images", p, len(s.Images().List()))
	}
}

// TestLabel: the directories of layers get the label, and what is made in them
// inherits it from the kernel. (This kernel keeps it, whether or not it has
// SELinux.)
func TestLabel(t *testing.T) {
	s := &Store{root: t.TempDir()}
	for _, dir := range []string{s.stagingDir(), s.containersDir(), s.trashDir(), s.emptyDir()} {
		must(t, os.MkdirAll(dir, 0o700))
	}
	const label = "system_u:object_r:container_ro_file_t:s0"
	must(t, s.label(label))
	for _, dir := range []string{filepath.Join(s.graphRoot(), "overlay"), s.stagingDir(), s.containersDir(), s.trashDir(), s.emptyDir()} {
		got := make([]byte, 100)
		n, err := unix.Getxattr(dir, "security.selinux", got)
		if err != nil || string(got[:n]) != label {
			t.Errorf("%s: %q, %v", dir, got[:max(n, 0)], err)
		}
	}
	must(t, s.label(""))
	must(t, os.RemoveAll(s.emptyDir()))
	if s.label(label) == nil {
		t.Error("a directory that is gone is labelled")
	}
}

// TestDamagedRecordsUnderContainers: whatever records are damaged, the layers
// that containers use stay, until the containers go.
func TestDamagedRecordsUnderContainers(t *testing.T) {
	for _, name := range []string{"overlay-images/images.json", "overlay-layers/layers.json", "rootfs.json"} {
		for how, body := range map[string]string{"cut": `[{"id":"0`, "of another kind": `{"id":"x"}`, "without ids": `[{}]`} {
			t.Run(filepath.Base(name)+" "+how, func(t *testing.T) {
				dir := t.TempDir()
				s := openTest(t, dir)
				img := testImage(t, s)
				r := newRootFS(t, s, img)
				must(t, s.Close())
				path := filepath.Join(s.graphRoot(), name)
				if name == "rootfs.json" {
					path = s.rootfsFile(r.Container)
				}
				must(t, os.WriteFile(path, []byte(body), 0o600))
				intact := func(when string) {
					t.Helper()
					for i, f := range []string{"b", "a"} {
						if !exists(filepath.Join(r.Lower[i], f)) {
							t.Errorf("%s: %s is gone from beneath a container", when, f)
						}
					}
				}
				for _, when := range []string{"at the start", "at the second start"} {
					s = openTest(t, dir)
					if when == "at the start" && len(s.Problems()) == 0 {
						t.Error("nobody is told")
					}
					must(t, s.Reclaim(func(id.Container) bool { return true }))
					intact(when)
					if when == "at the start" {
						must(t, s.Close())
					}
				}
				// An image of the same base comes and goes.
				other := addImage(t, s, "docker.io/library/other:1",
					layerTar(t, entry{name: "./", kind: '5', mode: 0o750, uid: 3}, file("a", "1")), layerTar(t, file("c", "3")))
				must(t, s.Remove(t.Context(), other.ID))
				if name != "overlay-layers/layers.json" { // there the base was put in the place of the other
					intact("after the removal of another image")
				}
				must(t, s.RemoveRootFS(r.Container))
				if img, ok := s.Images().ByID(img.ID); ok {
					must(t, s.Remove(t.Context(), img.ID))
				}
				must(t, s.Close())
				s = openTest(t, dir)
				must(t, s.Reclaim(func(id.Container) bool { return false }))
				must(t, s.Close())
				layers, err := filepath.Glob(filepath.Join(s.graphRoot(), "overlay", strings.Repeat("[0-9a-f]", 64)))
				if err != nil || len(layers) != 0 {
					t.Errorf("layers are left: %v, %v", layers, err)
				}
			})
		}
	}
}
