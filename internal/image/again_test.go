package image

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/gantry-cri/gantry/internal/storage"
)

// deepImage has one layer with files at its top and far below it.
func deepImage(t testing.TB) testImage {
	t.Helper()
	members := []member{{name: "top", body: "top"}, {name: "etc/conf", body: "conf"}}
	for i := range 200 {
		members = append(members, member{name: "usr/lib/" + strings.Repeat("d", 1+i) + "/file", body: "file"})
	}
	return imageOf(t, gzipped(t, archiveOf(t, members...)), digest.FromBytes(archiveOf(t, members...)))
}

// TestPullAgain: a tag that was pulled before, and another tag of the image,
// cost the request for the manifest and none for a blob.
func TestPullAgain(t *testing.T) {
	reg := newFake(t)
	src := deepImage(t)
	reg.put("app", "1", src)
	reg.put("app", "2", src)
	reg.put("multi", "1", indexOf(t, src))
	reg.put("multi", "inner", src)
	s := newService(t, withRegistries(t, insecure(reg.host)))
	s.pull(t, reg.host+"/app:1")
	s.pull(t, reg.host+"/multi:1") // the index is new to the record
	blobs := reg.count("/blobs/")
	for _, name := range []string{"/app:1", "/app:2", "/app:2", "/multi:1", "/app@" + src.digest().String()} {
		before := reg.count("/manifests/")
		img := s.pull(t, reg.host+name)
		want := 1
		if strings.HasPrefix(name, "/multi") {
			want = 2
		}
		if n := reg.count("/manifests/") - before; n != want {
			t.Errorf("%s: %d requests for manifests, want %d", name, n, want)
		}
		if found, err := s.Resolve(reg.host + name); err != nil || found.ID != img.ID {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := reg.count("/blobs/"); n != blobs {
		t.Errorf("%d requests for blobs", n-blobs)
	}
	// A restart has the names, too.
	s.close(t)
	again := openService(t, s.dir, nil)
	for _, name := range []string{"/app:1", "/app:2", "/multi:1"} {
		if _, err := again.Resolve(reg.host + name); err != nil {
			t.Error(err)
		}
	}
	again.close(t)
	*s = *openService(t, s.dir, nil) // for the clean-up
}

// TestPullHeals: what is damaged in a stored layer is found by the pull where
// that looks, and after that by whoever looks at everything.
func TestPullHeals(t *testing.T) {
	deep := "usr/lib/" + strings.Repeat("d", 180) + "/file"
	for name, c := range map[string]struct {
		damage func(dir string) error
		by     string // what finds it: pull, verify or start
	}{
		"layer gone":        {func(dir string) error { return os.RemoveAll(filepath.Dir(dir)) }, "pull"},
		"files gone":        {os.RemoveAll, "pull"},
		"emptied":           {emptyDirectory, "pull"},
		"file removed":      {func(dir string) error { return os.Remove(filepath.Join(dir, "etc/conf")) }, "pull"},
		"file added":        {func(dir string) error { return os.WriteFile(filepath.Join(dir, "etc/new"), nil, 0o600) }, "pull"},
		"directory's mode":  {func(dir string) error { return os.Chmod(filepath.Join(dir, "etc"), 0o700) }, "pull"},
		"deep file removed": {func(dir string) error { return os.Remove(filepath.Join(dir, deep)) }, "verify"},
		"file truncated":    {func(dir string) error { return os.Truncate(filepath.Join(dir, "top"), 1) }, "verify"},
		"deep truncated":    {func(dir string) error { return os.Truncate(filepath.Join(dir, deep), 1) }, "start"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg := newFake(t)
			src := deepImage(t)
			reg.put("app", "1", src)
			conf := withRegistries(t, insecure(reg.host))
			s := openService(t, t.TempDir(), conf)
			img := s.pull(t, reg.host+"/app:1")
			must(t, c.damage(layerFiles(t, s, img)))
			if c.by == "start" {
				s.close(t)
				s = openService(t, s.dir, conf)
			}
			if c.by == "verify" {
				s.pull(t, reg.host+"/app:1")
				if damaged, err := s.Damaged(t.Context(), img); err != nil || len(damaged) != 1 {
					t.Errorf("damaged: %v, %v; a pull finds more than it says", damaged, err)
				}
			}
			img = s.pull(t, reg.host+"/app:1")
			if damaged, err := s.Damaged(t.Context(), img); err != nil || len(damaged) != 0 {
				t.Errorf("after the pull: %v, %v", damaged, err)
			}
			if n := reg.count("/blobs/" + src.layers[0].String()); n != 2 {
				t.Errorf("layer fetched %d times, want 2", n)
			}
			s.close(t)
		})
	}
}

// layerFiles is the directory of an image's only layer.
func layerFiles(t *testing.T, s *testService, img storage.Image) string {
	t.Helper()
	driver, err := s.store.Library().GraphDriver()
	must(t, err)
	meta, err := driver.Metadata(img.TopLayer)
	must(t, err)
	return meta["UpperDir"]
}

func emptyDirectory(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}
