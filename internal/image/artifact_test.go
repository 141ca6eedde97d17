package image

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/image-spec/specs-go"
	imgspec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantry-cri/gantry/internal/errkind"
)

// blobOf is one blob of an artifact.
type blobOf struct {
	title, mediaType, body string
	unpack                 bool
}

// buildArtifact makes an artifact as ORAS does.
func buildArtifact(t testing.TB, kind string, blobs ...blobOf) testImage {
	t.Helper()
	img := buildImage(t, nil)
	m := imgspec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: img.mediaType, ArtifactType: kind}
	m.Config = img.add(imgspec.MediaTypeEmptyJSON, []byte("{}"))
	for _, b := range blobs {
		if b.mediaType == "" {
			b.mediaType = "application/octet-stream"
		}
		d := img.add(b.mediaType, []byte(b.body))
		d.Annotations = map[string]string{}
		if b.title != "" {
			d.Annotations[imgspec.AnnotationTitle] = b.title
		}
		if b.unpack {
			d.Annotations[unpackAnnotation] = "true"
		}
		m.Layers = append(m.Layers, d)
	}
	var err error
	img.manifest, err = json.Marshal(m)
	must(t, err)
	return img
}

func entries(t testing.TB, headers ...tar.Header) string {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, h := range headers {
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(h.Name))
		}
		must(t, w.WriteHeader(&h))
		if h.Typeflag == tar.TypeReg {
			_, err := w.Write([]byte(h.Name))
			must(t, err)
		}
	}
	must(t, w.Close())
	return buf.String()
}

func TestArtifact(t *testing.T) {
	reg := newRegistry(t)
	docs := entries(t, tar.Header{Name: "docs/", Typeflag: tar.TypeDir, Mode: 0o755},
		tar.Header{Name: "docs/page", Typeflag: tar.TypeReg, Mode: 0o4755, PAXRecords: map[string]string{"SCHILY.xattr.user.x": "y"}},
		tar.Header{Name: "docs/link", Linkname: "page", Typeflag: tar.TypeSymlink})
	untitled := "no title"
	reg.put("model", "1", buildArtifact(t, "application/vnd.example.model",
		blobOf{title: "weights.bin", body: strings.Repeat("w", 3<<20)}, blobOf{title: "conf/deep/a.json", body: "{}"}, blobOf{title: "./conf/b.json", body: "[]"},
		blobOf{title: "docs", body: string(gzipped(t, []byte(docs))), unpack: true},
		blobOf{mediaType: imgspec.MediaTypeImageLayer, body: entries(t, tar.Header{Name: "from-layer", Typeflag: tar.TypeReg, Mode: 0o644})},
		blobOf{body: untitled}, blobOf{mediaType: imgspec.MediaTypeEmptyJSON, body: "{}"}))
	s := newService(t, withRegistries(t, insecure(reg.host)))
	name := reg.host + "/model:1"
	img := s.pull(t, name)
	if kind, ok := ArtifactType(img); !ok || kind != "application/vnd.example.model" {
		t.Errorf("type %q, %t", kind, ok)
	}
	if len(img.Layers) != 1 || img.Size < 3<<20 {
		t.Errorf("%d layers, %d bytes", len(img.Layers), img.Size)
	}
	root := filepath.Join(s.dir, "root/storage/overlay", img.Layers[0], "diff")
	for path, want := range map[string]string{
		"conf/deep/a.json": "{}", "conf/b.json": "[]", "docs/page": "docs/page", "docs/link": "docs/page", "from-layer": "from-layer",
	} {
		if body, err := os.ReadFile(filepath.Join(root, path)); err != nil || string(body) != want {
			t.Errorf("%s: %q, %v", path, body, err)
		}
	}
	if info, err := os.Stat(filepath.Join(root, "docs/page")); err != nil || info.Mode() != 0o755 {
		t.Errorf("mode %v, %v", info, err)
	}
	files, err := os.ReadDir(root)
	must(t, err)
	if len(files) != 5 { // weights.bin, conf, docs, from-layer, and the blob without a title
		t.Errorf("files: %v", files)
	}
	// The same again costs nothing, and heals.
	must(t, os.Remove(filepath.Join(root, "weights.bin")))
	if again := s.pull(t, name); again.ID != img.ID {
		t.Errorf("pulled again: %s, before %s", again.ID, img.ID)
	}
	if _, err := os.Stat(filepath.Join(root, "weights.bin")); err != nil {
		t.Error(err)
	}
	if _, err := s.Info(img); err != nil {
		t.Error(err)
	}
	must(t, s.Remove(t.Context(), name))
	s.wantNothing(t)
}

// TestArtifactsDiffer: two artifacts with the same (empty) configuration are two images.
func TestArtifactsDiffer(t *testing.T) {
	reg := newFake(t)
	reg.put("a", "1", buildArtifact(t, "x/y", blobOf{title: "f", body: "one"}))
	reg.put("a", "2", buildArtifact(t, "x/y", blobOf{title: "f", body: "two"}))
	reg.put("a", "3", buildArtifact(t, "x/y"))
	s := newService(t, withRegistries(t, insecure(reg.host)))
	ids := map[string]bool{}
	for _, tag := range []string{"1", "2", "3"} {
		ids[s.pull(t, reg.host+"/a:"+tag).ID] = true
	}
	if len(ids) != 3 {
		t.Errorf("ids %v", ids)
	}
}

func TestHostileArtifacts(t *testing.T) {
	reg := newFake(t)
	s := newService(t, func(o *Options) {
		withRegistries(t, insecure(reg.host))(o)
	})
	device := tar.Header{Name: "null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3}
	for name, blobs := range map[string][]blobOf{
		"upwards":            {{title: "../evil"}},
		"absolute":           {{title: "/etc/evil"}},
		"deep upwards":       {{title: "a/../../evil"}},
		"the root":           {{title: "."}},
		"a whiteout":         {{title: "a/.wh.b"}},
		"twice":              {{title: "a", body: "1"}, {title: "./a", body: "2"}},
		"file and directory": {{title: "a", body: "1"}, {title: "a/b", body: "2"}},
		"directory and file": {{title: "a/b", body: "1"}, {title: "a", body: "2"}},
		"a device":           {{title: "x", unpack: true, body: entries(t, device)}},
		"an archived name":   {{title: "x", unpack: true, body: entries(t, tar.Header{Name: "../evil", Typeflag: tar.TypeReg})}},
		"through a link":     {{title: "x", unpack: true, body: entries(t, tar.Header{Name: "l", Linkname: "/tmp", Typeflag: tar.TypeSymlink})}, {title: "l/evil", body: "x"}},
		"an archived wh":     {{title: "x", unpack: true, body: entries(t, tar.Header{Name: "a/.wh..wh..opq", Typeflag: tar.TypeReg})}},
		"no archive":         {{title: "x", unpack: true, body: strings.Repeat("no archive", 1000)}},
		"a foreign layer":    {{title: "x", mediaType: "application/vnd.oci.image.layer.nondistributable.v1.tar"}},
	} {
		t.Run(name, func(t *testing.T) {
			reg.put("evil", "1", buildArtifact(t, "x/y", blobs...))
			_, err := s.Pull(t.Context(), PullRequest{Image: reg.host + "/evil:1"})
			if name == "through a link" && err == nil {
				if _, err := os.Lstat("/tmp/evil"); err == nil {
					t.Fatal("written outside")
				}
				must(t, s.Remove(t.Context(), reg.host+"/evil:1"))
				return
			}
			if errkind.Of(err) != errkind.Invalid {
				t.Errorf("%v (kind %d)", err, errkind.Of(err))
			}
			s.wantNothing(t)
		})
	}
	lying := buildArtifact(t, "x/y", blobOf{title: "a", body: "what it says"}, blobOf{title: "b", body: "what it says too"})
	for d, body := range lying.blobs {
		if len(body) > 2 {
			lying.blobs[d] = append([]byte("W"), body[1:]...)
		}
	}
	reg.put("evil", "1", lying)
	if _, err := s.Pull(t.Context(), PullRequest{Image: reg.host + "/evil:1"}); errkind.Of(err) != errkind.Unavailable || !strings.Contains(err.Error(), "digest") {
		t.Errorf("a lying blob: %v", err)
	}
	s.wantNothing(t)
}
