package integration

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	imgspec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/test/testenv"
)

// documents is a registry of images that no decent tool would push.
type documents struct {
	manifests map[string][]byte // by repository
	blobs     map[string][]byte // by digest
}

func (d documents) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(r.URL.Path, "/v2/")
	repository, _, manifest := strings.Cut(path, "/manifests/")
	_, blob, _ := strings.Cut(path, "/blobs/")
	switch {
	case path == "":
	case manifest && d.manifests[repository] != nil:
		w.Header().Set("Content-Type", imgspec.MediaTypeImageManifest)
		_, _ = w.Write(d.manifests[repository])
	case d.blobs[blob] != nil:
		_, _ = w.Write(d.blobs[blob])
	default:
		http.NotFound(w, r)
	}
}

// put adds an image of one gzip layer, so many times.
func (d documents) put(t *testing.T, repository string, times int, headers ...*tar.Header) {
	t.Helper()
	var raw, packed bytes.Buffer
	w := tar.NewWriter(&raw)
	for _, h := range headers {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
	}
	_ = w.Flush() // fails for a member whose content is missing: that is meant
	z := gzip.NewWriter(&packed)
	_, err := z.Write(raw.Bytes())
	if err != nil || z.Close() != nil {
		t.Fatal(err)
	}
	config := imgspec.Image{Platform: imgspec.Platform{OS: "linux", Architecture: "amd64"}, RootFS: imgspec.RootFS{Type: "layers"}}
	m := imgspec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: imgspec.MediaTypeImageManifest}
	for range times {
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, digest.FromBytes(raw.Bytes()))
		m.Layers = append(m.Layers, d.blob(imgspec.MediaTypeImageLayerGzip, packed.Bytes()))
	}
	m.Config = d.blob(imgspec.MediaTypeImageConfig, mustJSON(t, config))
	d.manifests[repository] = mustJSON(t, m)
}

func (d documents) blob(mediaType string, body []byte) imgspec.Descriptor {
	sum := digest.FromBytes(body)
	d.blobs[sum.String()] = body
	return imgspec.Descriptor{MediaType: mediaType, Digest: sum, Size: int64(len(body))}
}

func mustJSON(t *testing.T, v any) []byte {
	t.Helper()
	body, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// TestHostileImages: each is refused with the right code, and leaves nothing.
func TestHostileImages(t *testing.T) {
	notForPeers(t)
	d := documents{manifests: map[string][]byte{}, blobs: map[string][]byte{}}
	file := func(name string) *tar.Header { return &tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644} }
	d.put(t, "hostile/up", 1, file("../../../../tmp/evil"))
	d.put(t, "hostile/link", 1, &tar.Header{Name: "a", Typeflag: tar.TypeLink, Linkname: "/etc/passwd"})
	d.put(t, "hostile/size", 1, &tar.Header{Name: "a", Typeflag: tar.TypeReg, Size: 1<<63 - 1})
	d.put(t, "hostile/large", 1, &tar.Header{Name: "a", Typeflag: tar.TypeReg, Size: 3 << 20})
	d.put(t, "hostile/cut", 1, &tar.Header{Name: "a", Typeflag: tar.TypeReg, Size: 1 << 20})
	d.put(t, "hostile/layers", 21, file("a"))
	d.manifests["hostile/manifest"] = []byte(strings.Repeat(" ", 5<<20))
	server := httptest.NewServer(d)
	t.Cleanup(server.Close) // the tests below run after this function
	o := testenv.Options{
		Registry: &testenv.Registry{Address: strings.TrimPrefix(server.URL, "http://")},
		Config:   "max_image_layers = 20\nmax_layer_bytes = 2097152",
	}
	eachWith(t, o, func(t *testing.T, env *testenv.Env) {
		for name, want := range map[string]codes.Code{
			"up": codes.InvalidArgument, "link": codes.InvalidArgument, "cut": codes.InvalidArgument, "manifest": codes.InvalidArgument,
			"size": codes.ResourceExhausted, "large": codes.ResourceExhausted, "layers": codes.ResourceExhausted,
		} {
			prompt(t, name, 20*time.Second, func() {
				_, err := env.Images.PullImage(env.Context(), &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: "docker.io/hostile/" + name + ":1"}})
				wantCode(t, name, err, want)
				t.Log(err)
			})
		}
		list, err := env.Images.ListImages(env.Context(), &runtimeapi.ListImagesRequest{})
		wantCode(t, "ListImages", err, codes.OK)
		wantEqual(t, "number of images", len(list.GetImages()), 0)
		for _, dir := range []string{"staging", "unsynced", "tmp/blobs"} {
			left, err := os.ReadDir(filepath.Join(env.Root, dir))
			if err == nil && len(left) > 0 {
				t.Errorf("left in %s: %v", dir, left)
			}
		}
	})
}
