package storage

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gantry-cri/gantry/internal/id"
)

// holdRecords keeps names from being recorded, as a slow disk does, until
// release is called.
func holdRecords(s *Store) (release func()) {
	s.records.Lock()
	return s.records.Unlock
}

func namesOf(t *testing.T, s *Store, img Image) []string {
	t.Helper()
	rec, err := s.Library().Image(img.ID)
	must(t, err)
	return slices.Sorted(slices.Values(rec.Names))
}

func TestNamesAreListedAtOnce(t *testing.T) {
	s := newTest(t)
	one := addImage(t, s, "docker.io/library/test:1", layerTar(t, file("a", "1")))
	two := addImage(t, s, "docker.io/library/test:2", layerTar(t, file("a", "2")))
	release := holdRecords(s)
	for _, step := range []struct {
		img  Image
		name string
	}{{one, "docker.io/library/test:3"}, {two, "docker.io/library/test:3"}, {two, "docker.io/library/test:1"}} {
		img, ok, err := s.AddNames(step.img.ID, []string{step.name})
		if err != nil || !ok || !slices.Contains(img.Names, step.name) {
			t.Errorf("%v, %v: %v", ok, err, img.Names)
		}
		if found, _ := s.Images().ByName(step.name); found.ID != step.img.ID {
			t.Errorf("%s is %s", step.name, found.ID)
		}
	}
	release()
	s.tasks.Wait()
	if names := namesOf(t, s, one); len(names) != 0 {
		t.Errorf("first image: %v", names)
	}
	if names := namesOf(t, s, two); len(names) != 3 {
		t.Errorf("second image: %v", names)
	}
	must(t, s.Refresh())
	if found, _ := s.Images().ByName("docker.io/library/test:1"); found.ID != two.ID {
		t.Error("the last word does not count")
	}
	if left, err := os.ReadDir(s.namingDir()); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// TestNamesOutliveKill: names that the library was not told of are there in
// the next process, but for those of an image that was removed.
func TestNamesOutliveKill(t *testing.T) {
	dir := t.TempDir()
	s := openTest(t, dir)
	one := addImage(t, s, "docker.io/library/test:1", layerTar(t, file("a", "1")))
	two := addImage(t, s, "docker.io/library/test:2", layerTar(t, file("a", "2")))
	release := holdRecords(s)
	for _, img := range []Image{one, two} {
		_, _, err := s.AddNames(img.ID, []string{"docker.io/library/again:" + img.ID[:6]})
		must(t, err)
	}
	saved := filepath.Join(dir, "saved")
	must(t, os.CopyFS(saved, os.DirFS(s.namingDir()))) // as a kill leaves it
	release()
	must(t, s.Remove(t.Context(), two.ID))
	s.tasks.Wait()
	must(t, s.lib.SetNames(one.ID, []string{"docker.io/library/test:1"}))
	must(t, s.Close())
	must(t, os.CopyFS(s.namingDir(), os.DirFS(saved)))
	must(t, os.WriteFile(filepath.Join(s.namingDir(), "zzz"), []byte(`{"vers`), 0o600)) // power loss

	s = openTest(t, dir)
	defer s.Close()
	if len(s.Images().List()) != 1 || len(s.Problems()) != 0 {
		t.Errorf("images %v, problems %v", s.Images().List(), s.Problems())
	}
	if _, ok := s.Images().ByName("docker.io/library/again:" + one.ID[:6]); !ok {
		t.Errorf("name lost: %v", s.Images().List())
	}
	if left, err := os.ReadDir(s.namingDir()); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestNamesOfRemovedImage(t *testing.T) {
	s := newTest(t)
	img := testImage(t, s)
	r := newRootFS(t, s, img) // keeps the record
	release := holdRecords(s)
	_, _, err := s.AddNames(img.ID, []string{"docker.io/library/again:1"})
	must(t, err)
	release()
	must(t, s.Remove(t.Context(), img.ID))
	s.tasks.Wait()
	if names := namesOf(t, s, img); len(names) != 0 {
		t.Errorf("names: %v", names)
	}
	if _, ok, err := s.AddNames(img.ID, []string{"docker.io/library/again:2"}); ok || err != nil {
		t.Errorf("named after its removal: %v, %v", ok, err)
	}
	if left, err := os.ReadDir(s.namingDir()); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	must(t, s.RemoveRootFS(r.Container))
}

func TestShape(t *testing.T) {
	dir := t.TempDir()
	for i := range 3 * shapeDirs { // in two levels
		must(t, os.MkdirAll(filepath.Join(dir, strings.Repeat("x", 1+i%20), string(id.NewContainer())), 0o755))
	}
	before, err := shapeOf(dir)
	must(t, err)
	again, err := shapeOf(dir)
	if err != nil || again != before {
		t.Errorf("changes by itself: %v", err)
	}
	must(t, os.WriteFile(filepath.Join(dir, "x", "new"), nil, 0o600))
	if after, err := shapeOf(dir); err != nil || after == before {
		t.Errorf("nothing noticed: %v", err)
	}
	if _, err := shapeOf(filepath.Join(dir, "nothing")); err == nil {
		t.Error("no error for what is not there")
	}
}
