package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	imgspec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantry-cri/gantry/internal/storage"
)

func TestMain(m *testing.M) {
	if storage.Reexec() {
		return
	}
	if os.Getenv(crashEnv) != "" {
		churnUntilKilled(os.Getenv(crashEnv), os.Getenv(crashEnv+"_REGISTRY"))
		return
	}
	os.Exit(m.Run())
}

// testService is a service with a store of its own.
type testService struct {
	*Service
	store *storage.Store
	dir   string
}

// newService starts a service; change may set options.
func newService(t testing.TB, change func(*Options)) *testService {
	t.Helper()
	s := openService(t, t.TempDir(), change)
	t.Cleanup(func() { s.close(t) })
	return s
}

func openService(t testing.TB, dir string, change func(*Options)) *testService {
	t.Helper()
	store, err := storage.Open(storage.Options{Root: filepath.Join(dir, "root"), RunRoot: filepath.Join(dir, "run")})
	must(t, err)
	o := Options{
		Store:         store,
		TempDir:       filepath.Join(dir, "root", "tmp"),
		CertsDir:      filepath.Join(dir, "certs.d"),
		RegistriesDir: filepath.Join(dir, "registries.d"),
		RetryDelay:    time.Millisecond,
	}
	if change != nil {
		change(&o)
	}
	s, err := New(o)
	must(t, err)
	return &testService{s, store, dir}
}

func (s *testService) close(t testing.TB) {
	must(t, s.Service.Close())
	must(t, s.store.Close())
}

// write makes a file in the service's directory and returns its path.
func write(t testing.TB, dir, name, body string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, []byte(body), 0o600))
	return path
}

// insecure is a registries.conf for plain HTTP registries.
func insecure(hosts ...string) string {
	conf := "unqualified-search-registries = [\"docker.io\"]\n"
	for _, host := range hosts {
		conf += fmt.Sprintf("[[registry]]\nlocation = %q\ninsecure = true\n", host)
	}
	return conf
}

// withRegistries makes conf the service's registries.conf.
func withRegistries(t testing.TB, conf string) func(*Options) {
	path := write(t, t.TempDir(), "registries.conf", conf)
	return func(o *Options) { o.RegistriesConf = path }
}

// testImage is an image as a registry holds it.
type testImage struct {
	manifest  []byte
	mediaType string
	blobs     map[digest.Digest][]byte
	config    digest.Digest
	layers    []digest.Digest
}

func (i testImage) digest() digest.Digest { return digest.FromBytes(i.manifest) }

// buildImage makes an image with one gzip layer per argument, of that many
// random bytes.
func buildImage(t testing.TB, change func(*imgspec.Image), layers ...int) testImage {
	t.Helper()
	img := testImage{mediaType: imgspec.MediaTypeImageManifest, blobs: map[digest.Digest][]byte{}}
	config := imgspec.Image{Platform: imgspec.Platform{OS: "linux", Architecture: "amd64"}}
	config.RootFS.Type = "layers"
	m := imgspec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: img.mediaType}
	for i, size := range layers {
		body := make([]byte, size)
		rng := rand.NewChaCha8([32]byte{byte(i), byte(size), byte(size >> 8), byte(size >> 16)})
		_, _ = rng.Read(body)
		raw := tarOf(t, fmt.Sprintf("layer%d", i), body)
		blob := gzipped(t, raw)
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, digest.FromBytes(raw))
		m.Layers = append(m.Layers, img.add(imgspec.MediaTypeImageLayerGzip, blob))
		img.layers = append(img.layers, digest.FromBytes(blob))
	}
	if change != nil {
		change(&config)
	}
	body, err := json.Marshal(config)
	must(t, err)
	m.Config = img.add(imgspec.MediaTypeImageConfig, body)
	img.config = m.Config.Digest
	img.manifest, err = json.Marshal(m)
	must(t, err)
	return img
}

func (i testImage) add(mediaType string, blob []byte) imgspec.Descriptor {
	d := digest.FromBytes(blob)
	i.blobs[d] = blob
	return imgspec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(blob))}
}

// indexOf is a multi-platform index with img for this machine.
func indexOf(t testing.TB, img testImage) testImage {
	t.Helper()
	desc := imgspec.Descriptor{
		MediaType: img.mediaType, Digest: img.digest(), Size: int64(len(img.manifest)),
		Platform: &imgspec.Platform{OS: "linux", Architecture: "amd64"},
	}
	other := desc
	other.Digest = digest.FromString("other")
	other.Platform = &imgspec.Platform{OS: "linux", Architecture: "s390x"}
	body, err := json.Marshal(imgspec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: imgspec.MediaTypeImageIndex,
		Manifests: []imgspec.Descriptor{other, desc},
	})
	must(t, err)
	return testImage{manifest: body, mediaType: imgspec.MediaTypeImageIndex}
}

func tarOf(t testing.TB, name string, body []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	must(t, w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(body))}))
	_, err := w.Write(body)
	must(t, err)
	must(t, w.Close())
	return buf.Bytes()
}

func gzipped(t testing.TB, raw []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	w, err := gzip.NewWriterLevel(&buf, gzip.BestSpeed)
	must(t, err)
	_, err = w.Write(raw)
	must(t, err)
	must(t, w.Close())
	return buf.Bytes()
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
