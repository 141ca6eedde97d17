package image

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"
	imgspec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.podman.io/storage/pkg/chunked/compressor"
)

// files are a layer's, by name.
type files map[string]string

// randomFiles makes some files, a large one and some null bytes among them.
func randomFiles(n int) files {
	rng := rand.NewChaCha8([32]byte{1})
	body := func(size int) string {
		b := make([]byte, size)
		_, _ = rng.Read(b)
		return string(b)
	}
	f := files{"large": body(4 << 20), "holes": body(5000) + string(make([]byte, 1<<20)) + body(5000), "empty": ""}
	for i := range n {
		f[fmt.Sprintf("usr/d%d/file%d", i%10, i)] = body(1000 + i*700)
	}
	return f
}

func (f files) archive(t testing.TB) []byte {
	t.Helper()
	members := []member{{name: "usr", kind: '5', mode: 0o755}}
	for _, name := range slices.Sorted(maps.Keys(f)) {
		members = append(members, member{name: name, body: f[name]})
	}
	members = append(members, member{name: "link", kind: '2', link: "large"}, member{name: "hard", kind: '1', link: "holes"})
	return archiveOf(t, members...)
}

// chunkedImage is an image of one layer, compressed as zstd:chunked by the
// library's own writer.
func chunkedImage(t testing.TB, f files, change func(annotations map[string]string)) testImage {
	t.Helper()
	raw := f.archive(t)
	blob, annotations := chunkedBlob(t, raw)
	if change != nil {
		change(annotations)
	}
	img := imageOf(t, blob, digest.FromBytes(raw))
	return changed(t, img, func(m *imgspec.Manifest) {
		m.Layers[0].MediaType, m.Layers[0].Annotations = imgspec.MediaTypeImageLayerZstd, annotations
	})
}

func chunkedBlob(t testing.TB, raw []byte) (blob []byte, annotations map[string]string) {
	t.Helper()
	var buf bytes.Buffer
	annotations = map[string]string{}
	w, err := compressor.ZstdCompressor(&buf, annotations, nil)
	must(t, err)
	_, err = w.Write(raw)
	must(t, err)
	must(t, w.Close())
	return buf.Bytes(), annotations
}

// sentBytes counts what a registry sends of a blob.
func (f *fakeRegistry) sentBytes(img testImage, spoil func(w http.ResponseWriter, r *http.Request) bool) *atomic.Int64 {
	var sent atomic.Int64
	f.failWith(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, img.layers[0].String()) {
			return false
		}
		counted := &countingWriter{w, &sent}
		if spoil != nil && spoil(counted, r) {
			return true
		}
		f.blob(counted, r, img.layers[0])
		return true
	})
	return &sent
}

type countingWriter struct {
	http.ResponseWriter
	sent *atomic.Int64
}

func (w *countingWriter) Write(b []byte) (int, error) {
	n, err := w.ResponseWriter.Write(b)
	w.sent.Add(int64(n))
	return n, err
}

func (f files) check(t *testing.T, dir string) {
	t.Helper()
	for name, body := range f {
		if have, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(have) != body {
			t.Errorf("%s: %d bytes, want %d: %v", name, len(have), len(body), err)
		}
	}
	if to, err := os.Readlink(filepath.Join(dir, "link")); err != nil || to != "large" {
		t.Errorf("link to %q: %v", to, err)
	}
}

// TestPartialPull: of the second version of an image only what is new is
// fetched, also after a restart, and also by a part of a large file. Where a
// partial pull is not possible, or goes wrong, the layer comes as a whole.
func TestPartialPull(t *testing.T) {
	old := randomFiles(100)
	fresh := maps.Clone(old)
	fresh["usr/d1/file1"] = "changed"
	fresh["usr/new"] = strings.Repeat("new", 1000)
	delete(fresh, "usr/d2/file2")
	large := []byte(old["large"])
	copy(large[2<<20:], "a few bytes in the middle")
	fresh["large"] = string(large)

	badDigest := func(a map[string]string) { a[tocDigestKey] = digest.FromString("another").String() }
	badPlace := func(a map[string]string) { a[tocPositionKey] = "999999999:10:10:1" }
	noRanges := func(w http.ResponseWriter, r *http.Request) bool {
		r.Header.Del("Range")
		return false
	}
	refusesMany := func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.Header.Get("Range"), ",") {
			return false
		}
		w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
		return true
	}
	breaksMany := func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.Header.Get("Range"), ",") {
			return false
		}
		w.Header().Set("Content-Type", "multipart/byteranges; boundary=x")
		w.WriteHeader(http.StatusPartialContent)
		_, _ = io.WriteString(w, "--x\r\nContent-Range: bytes 0-10/100\r\n\r\nnonsense")
		return true
	}
	for name, c := range map[string]struct {
		annotations func(map[string]string)
		spoil       func(w http.ResponseWriter, r *http.Request) bool
		damage      func(dir string) error // of the layer that is stored
		restart     bool
		partial     bool
	}{
		"as it should be":              {partial: true},
		"after a restart":              {partial: true, restart: true},
		"file gone":                    {damage: func(dir string) error { return os.Remove(filepath.Join(dir, "usr/d5/file95")) }},
		"file changed":                 {damage: func(dir string) error { return changeByte(filepath.Join(dir, "usr/d5/file95")) }},
		"file replaced by a link":      {damage: replaceByLink},
		"digest of the table is wrong": {annotations: badDigest},
		"place of the table is wrong":  {annotations: badPlace},
		"registry without ranges":      {spoil: noRanges},
		"registry with one range":      {spoil: refusesMany},
		"registry sends nonsense":      {spoil: breaksMany},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg := newFake(t)
			one, two := chunkedImage(t, old, nil), chunkedImage(t, fresh, c.annotations)
			reg.put("app", "1", one)
			reg.put("app", "2", two)
			conf := withRegistries(t, insecure(reg.host))
			s := openService(t, t.TempDir(), conf)
			defer func() { s.close(t) }()
			first := layerFiles(t, s, s.pull(t, reg.host+"/app:1"))
			old.check(t, first)
			if c.damage != nil {
				must(t, c.damage(first))
			}
			if c.restart {
				s.close(t)
				s = openService(t, s.dir, conf)
			}
			sent := reg.sentBytes(two, c.spoil)
			img := s.pull(t, reg.host+"/app:2")
			fresh.check(t, layerFiles(t, s, img))
			if damaged, err := s.Damaged(t.Context(), img); err != nil || len(damaged) != 0 {
				t.Errorf("damaged: %v, %v", damaged, err)
			}
			size := int64(len(two.blobs[two.layers[0]]))
			t.Logf("%d of %d bytes sent", sent.Load(), size)
			if c.partial && sent.Load() > size/8 {
				t.Error("more than is new was sent")
			}
			if left, err := filepath.Glob(filepath.Join(s.dir, "root/staging/*")); err != nil || len(left) != 0 {
				t.Errorf("left: %v, %v", left, err)
			}
			must(t, s.Remove(t.Context(), reg.host+"/app:2"))
			must(t, s.Remove(t.Context(), reg.host+"/app:1"))
			s.checkEmpty(t)
			if left, err := filepath.Glob(filepath.Join(s.dir, "root/pieces/*")); err != nil || len(left) != 0 {
				t.Errorf("left: %v, %v", left, err)
			}
		})
	}
}

// TestPartialPullFromRealRegistry: it has ranges, many to a request.
func TestPartialPullFromRealRegistry(t *testing.T) {
	reg := newRegistry(t)
	old := randomFiles(100)
	fresh := maps.Clone(old)
	fresh["usr/d1/file1"] = "changed"
	reg.put("app", "1", chunkedImage(t, old, nil))
	reg.put("app", "2", chunkedImage(t, fresh, nil))
	conf := withRegistries(t, insecure(reg.host))
	var log bytes.Buffer
	s := newService(t, func(o *Options) {
		conf(o)
		o.Log = slog.New(slog.NewTextHandler(&log, nil))
	})
	s.pull(t, reg.host+"/app:1")
	fresh.check(t, layerFiles(t, s, s.pull(t, reg.host+"/app:2")))
	if !strings.Contains(log.String(), "layer fetched in part") {
		t.Errorf("not in part: %s", log.String())
	}
}

func changeByte(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, 10); err != nil {
		return err
	}
	b[0] ^= 1
	_, err = f.WriteAt(b, 10)
	return err
}

// replaceByLink is what would make a file of the node one of the layer.
func replaceByLink(dir string) error {
	path := filepath.Join(dir, "usr/d5/file95")
	if err := os.Remove(path); err != nil {
		return err
	}
	return os.Symlink("/etc/passwd", path)
}

// TestLyingTOC: a table that the manifest names says of files what is not so.
// The layer is what the configuration says all the same.
func TestLyingTOC(t *testing.T) {
	old := randomFiles(40)
	fresh := maps.Clone(old)
	fresh["usr/d1/file31"] = strings.Repeat("x", len(old["usr/d1/file31"]))
	for name, lie := range map[string]func(toc string) string{
		"of a digest": func(toc string) string { // the new content is said to be the old
			return strings.ReplaceAll(toc, digest.FromString(fresh["usr/d1/file31"]).String(), digest.FromString(old["usr/d1/file31"]).String())
		},
		"of a place":   func(toc string) string { return strings.Replace(toc, `"offset":`, `"offset":1`, 1) },
		"of a size":    func(toc string) string { return strings.Replace(toc, `"size":`, `"size":9`, 2) },
		"not JSON":     func(toc string) string { return toc[:len(toc)/2] },
		"no entries":   func(string) string { return `{"version":1}` },
		"null":         func(string) string { return `null` },
		"lost chunk":   func(toc string) string { return strings.Replace(toc, `"type":"reg"`, `"type":"chunk"`, 1) },
		"bad entries":  func(string) string { return `{"version":1,"entries":{"a":1}}` },
		"without end":  func(toc string) string { return strings.ReplaceAll(toc, `"endOffset"`, `"x"`) },
		"wrong digest": func(toc string) string { return strings.ReplaceAll(toc, `"digest":"sha256:`, `"digest":"sha256:zz`) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg := newFake(t)
			reg.put("app", "1", chunkedImage(t, old, nil))
			reg.put("app", "2", withTOC(t, chunkedImage(t, fresh, nil), lie))
			s := newService(t, withRegistries(t, insecure(reg.host)))
			s.pull(t, reg.host+"/app:1")
			fresh.check(t, layerFiles(t, s, s.pull(t, reg.host+"/app:2")))
		})
	}
}

// withTOC changes an image's table of contents, and all digests that follow.
func withTOC(t *testing.T, img testImage, change func(string) string) testImage {
	t.Helper()
	var out testImage
	changed(t, img, func(m *imgspec.Manifest) {
		place, ok := tocOf(m.Layers[0].Annotations)
		if !ok {
			t.Fatal("no table")
		}
		blob := img.blobs[img.layers[0]]
		raw := unzstd(t, blob[place.offset:place.offset+place.length])
		text := change(string(raw))
		packed := zstdOf(t, func(w io.Writer) { _, _ = io.WriteString(w, text) })
		frame := []byte{0x50, 0x2a, 0x4d, 0x18, byte(len(packed)), byte(len(packed) >> 8), byte(len(packed) >> 16), 0}
		whole := slices.Concat(blob[:place.offset-8], frame, packed)
		diffID := digest.FromBytes(unzstd(t, blob))
		out = changed(t, imageOf(t, whole, diffID), func(n *imgspec.Manifest) {
			n.Layers[0].MediaType, n.Layers[0].Annotations = m.Layers[0].MediaType, map[string]string{
				tocDigestKey:   digest.FromBytes(packed).String(),
				tocPositionKey: fmt.Sprintf("%d:%d:%d:1", place.offset, len(packed), len(text)),
			}
		})
	})
	return out
}

func unzstd(t *testing.T, packed []byte) []byte {
	t.Helper()
	r, _, err := newDecompressor().open(t.Context(), bytes.NewReader(packed))
	must(t, err)
	defer r.Close()
	raw, err := io.ReadAll(r)
	must(t, err)
	return raw
}
