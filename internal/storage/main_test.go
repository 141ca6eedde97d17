package storage

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
	imgspec "github.com/opencontainers/image-spec/specs-go/v1"
	cstorage "go.podman.io/storage"

	"github.com/gantry-cri/gantry/internal/id"
)

func TestMain(m *testing.M) {
	if Reexec() {
		return
	}
	os.Exit(m.Run())
}

// openTest opens a store in dir; the caller closes it.
func openTest(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(Options{Root: filepath.Join(dir, "root"), RunRoot: filepath.Join(dir, "run")})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// newTest opens a store that is closed with the test.
func newTest(t testing.TB) *Store {
	t.Helper()
	s := openTest(t, t.TempDir())
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// entry is one member of a layer's archive.
type entry struct {
	name string
	body string // content, or the target of a link
	kind byte   // 0: file
	mode int64  // 0: 0644, directories 0755
	uid  int
}

func dir(name string) entry          { return entry{name: name, kind: tar.TypeDir, mode: 0o755} }
func file(name, body string) entry   { return entry{name: name, body: body, mode: 0o644} }
func link(name, target string) entry { return entry{name: name, body: target, kind: tar.TypeSymlink} }

func layerTar(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Typeflag: e.kind, Mode: e.mode, Uid: e.uid}
		switch e.kind {
		case tar.TypeSymlink, tar.TypeLink:
			h.Linkname = e.body
		case 0:
			h.Typeflag, h.Size = tar.TypeReg, int64(len(e.body))
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := w.Write([]byte(e.body)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// addImage stores an image with the given layers, bottom first.
func addImage(t testing.TB, s *Store, name string, layers ...[]byte) Image {
	t.Helper()
	defer s.BeginTransfer()()
	config := imgspec.Image{Config: imgspec.ImageConfig{Labels: map[string]string{"name": name}}}
	parent := ""
	for _, l := range layers {
		diff := digest.FromBytes(l)
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, diff)
		want := digest.FromString(parent + diff.String()).Encoded()
		layer, _, err := s.Library().PutLayer(want, parent, nil, "", false, nil, bytes.NewReader(l))
		if err != nil && !s.Library().Exists(want) {
			t.Fatal(err)
		}
		_ = layer
		parent = want
	}
	body, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	d := digest.FromBytes(body)
	_, err = s.Library().CreateImage(d.Encoded(), nil, parent, "", &cstorage.ImageOptions{
		BigData: []cstorage.ImageBigDataOption{{Key: d.String(), Data: body, Digest: d}},
	})
	if err != nil {
		t.Fatal(err)
	}
	img, err := s.Adopt(d.Encoded(), []string{name})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func newRootFS(t testing.TB, s *Store, img Image) RootFS {
	t.Helper()
	r, err := s.CreateRootFS(id.NewContainer(), img.ID, RootFSOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// addImageQuiet stores the same one-layer image again and again, for tests
// in which others remove it meanwhile.
func addImageQuiet(s *Store, t testing.TB, layer []byte) (imageID string) {
	defer s.BeginTransfer()()
	l, _, err := s.Library().PutLayer("", "", nil, "", false, nil, bytes.NewReader(layer))
	if err != nil {
		t.Error(err)
		return ""
	}
	body, err := json.Marshal(imgspec.Image{Author: l.ID})
	if err != nil {
		t.Error(err)
		return ""
	}
	d := digest.FromBytes(body)
	_, err = s.Library().CreateImage(d.Encoded(), nil, l.ID, "", &cstorage.ImageOptions{
		BigData: []cstorage.ImageBigDataOption{{Key: d.String(), Data: body, Digest: d}},
	})
	if err != nil {
		t.Error(err)
		return ""
	}
	if _, err := s.Adopt(d.Encoded(), []string{testName}); err != nil {
		t.Error(err)
	}
	return d.Encoded()
}
