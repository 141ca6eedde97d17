package image

import (
	"encoding/json"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	imgspec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantry-cri/gantry/internal/errkind"
)

// changed is img with another manifest.
func changed(t testing.TB, img testImage, change func(*imgspec.Manifest)) testImage {
	t.Helper()
	var m imgspec.Manifest
	must(t, json.Unmarshal(img.manifest, &m))
	change(&m)
	body, err := json.Marshal(m)
	must(t, err)
	img.manifest = body
	return img
}

// many is a manifest's layers so many times.
func many(m *imgspec.Manifest, times int) {
	one := m.Layers[0]
	m.Layers = nil
	for range times {
		m.Layers = append(m.Layers, one)
	}
}

func TestHostileDocuments(t *testing.T) {
	src := buildImage(t, nil, 100)
	for name, c := range map[string]struct {
		img  testImage
		want errkind.Kind
	}{
		"manifest of 100000 layers":   {changed(t, src, func(m *imgspec.Manifest) { many(m, 100_000) }), errkind.Invalid},
		"manifest of 20000 layers":    {changed(t, src, func(m *imgspec.Manifest) { many(m, 20_000) }), errkind.Invalid},
		"configuration of 8 EiB":      {changed(t, src, func(m *imgspec.Manifest) { m.Config.Size = 1<<63 - 1 }), errkind.Exhausted},
		"configuration of no bytes":   {changed(t, src, func(m *imgspec.Manifest) { m.Config.Size = -5 }), errkind.Invalid},
		"layer of 8 EiB":              {changed(t, src, func(m *imgspec.Manifest) { m.Layers[0].Size = 1<<63 - 1 }), errkind.Exhausted},
		"layer of less than no bytes": {changed(t, src, func(m *imgspec.Manifest) { m.Layers[0].Size = -5 }), errkind.Invalid},
		"bad digest of a layer":       {changed(t, src, func(m *imgspec.Manifest) { m.Layers[0].Digest = "sha256:../../../etc" }), errkind.Invalid},
		"unknown digest of a layer":   {changed(t, src, func(m *imgspec.Manifest) { m.Layers[0].Digest = "md5:" + digest.Digest(strings.Repeat("0", 32)) }), errkind.Invalid},
		"bad digest of the config":    {changed(t, src, func(m *imgspec.Manifest) { m.Config.Digest = "sha256:1" }), errkind.Invalid},
		"no JSON":                     {testImage{manifest: []byte("{"), mediaType: src.mediaType}, errkind.Invalid},
		"nested JSON":                 {testImage{manifest: []byte(strings.Repeat("[", 1<<20)), mediaType: src.mediaType}, errkind.Invalid},
		"unknown media type":          {testImage{manifest: src.manifest, mediaType: "text/html"}, errkind.Invalid},
		"more layers than the kernel has": {
			buildImage(t, nil, make([]int, 501)...), errkind.Exhausted,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			refused(t, c.img, c.want, nil)
		})
	}
	t.Run("configured", func(t *testing.T) {
		large := buildImage(t, func(c *imgspec.Image) { c.Author = strings.Repeat("a", 100<<10) }, 100)
		refused(t, large, errkind.Exhausted, func(o *Options) { o.Limits.DocumentBytes = 64 << 10 })
		refused(t, changed(t, src, func(m *imgspec.Manifest) { many(m, 1000) }), errkind.Exhausted, func(o *Options) { o.Limits.DocumentBytes = 64 << 10 })
	})
}

// TestEndlessAnswers: a registry goes on sending; no more is taken than there
// may be.
func TestEndlessAnswers(t *testing.T) {
	src := buildImage(t, nil, 100)
	for name, part := range map[string]string{
		"manifest": "/manifests/", "configuration": src.config.String(), "layer": src.layers[0].String(),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg := newFake(t)
			reg.put("app", "1", src)
			var sent atomic.Int64
			reg.failWith(func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.Contains(r.URL.Path, part) {
					return false
				}
				w.Header().Set("Content-Type", src.mediaType)
				piece := []byte(strings.Repeat(" ", 64<<10))
				for r.Context().Err() == nil {
					n, err := w.Write(piece)
					sent.Add(int64(n))
					if err != nil {
						return true
					}
				}
				return true
			})
			s := newService(t, withRegistries(t, insecure(reg.host)))
			start := time.Now()
			_, err := s.Pull(t.Context(), PullRequest{Image: reg.host + "/app:1"})
			if kind := errkind.Of(err); kind != errkind.Invalid && kind != errkind.Unavailable || time.Since(start) > prompt {
				t.Errorf("after %s: %v", time.Since(start), err)
			}
			t.Logf("%d bytes sent: %v", sent.Load(), err)
			if sent.Load() > 64<<20 { // some of them wait in sockets
				t.Errorf("%d bytes were taken", sent.Load())
			}
			s.checkEmpty(t)
		})
	}
}

// memoryBound is what six layers may make a pull hold, whatever they are:
// read-ahead, decompression, headers, what is known of directories, and
// garbage of all that. See ARCHITECTURE.md.
const memoryBound = 6 * 64 << 20

// TestMemoryIsBounded: archives that unpack to gigabytes of headers, extended
// attributes and directories are refused, or taken, with little memory.
func TestMemoryIsBounded(t *testing.T) {
	value := strings.Repeat("v", 900<<10)
	bombs := map[string]func(w io.Writer){
		"headers of directories": func(w io.Writer) {
			for i := range 120 { // 108 MB
				m := member{name: nested("d", i%100+1), kind: '5', pax: map[string]string{"comment": value}}
				_, err := w.Write(trimEnd(archiveOf(t, m)))
				must(t, err)
			}
		},
		"attributes of directories": func(w io.Writer) {
			pax := map[string]string{}
			for i := range 15 {
				pax["SCHILY.xattr.user.a"+string(rune('a'+i))] = value[:60<<10]
			}
			for i := range 120 {
				m := member{name: nested("d", i%100+1), kind: '5', pax: pax}
				_, err := w.Write(trimEnd(archiveOf(t, m)))
				must(t, err)
			}
		},
		"long names": func(w io.Writer) {
			for i := range 500 {
				m := member{name: nested(strings.Repeat(string(rune('a'+i%26)), 200), 1) + nested("d", i%60) + "x", kind: '5'}
				_, err := w.Write(trimEnd(archiveOf(t, m)))
				must(t, err)
			}
		},
	}
	for name, fill := range bombs {
		t.Run(name, func(t *testing.T) {
			blob := zstdOf(t, fill)
			var blobs [][]byte
			var diffIDs []digest.Digest
			for i := range 6 {
				blobs = append(blobs, append(blob, skippable(byte(i))...))
				diffIDs = append(diffIDs, digest.FromString(name))
			}
			reg := newFake(t)
			reg.put("app", "1", imageOfLayers(t, blobs, diffIDs))
			s := newService(t, withRegistries(t, insecure(reg.host)))
			var err error
			peak := peakOf(func() { _, err = s.Pull(t.Context(), PullRequest{Image: reg.host + "/app:1"}) })
			t.Logf("six layers of %d bytes: %d MiB: %.300v", len(blob), peak>>20, err)
			if kind := errkind.Of(err); kind != errkind.Invalid && kind != errkind.Exhausted {
				t.Errorf("kind %v: %v", kind, err)
			}
			if peak > memoryBound {
				t.Errorf("%d bytes of memory", peak)
			}
			s.checkEmpty(t)
		})
	}
}

// trimEnd is an archive without its end.
func trimEnd(archive []byte) []byte { return archive[:len(archive)-1024] }

// skippable is a zstd frame that means nothing, to make blobs differ.
func skippable(b byte) []byte { return []byte{0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, b} }

// peakOf is by how much the heap, garbage included, grows while f runs.
func peakOf(f func()) uint64 {
	runtime.GC()
	var base, now runtime.MemStats
	runtime.ReadMemStats(&base)
	done, peak := make(chan struct{}), uint64(0)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			runtime.ReadMemStats(&now)
			peak = max(peak, now.HeapInuse)
			select {
			case <-done:
				return
			case <-time.After(2 * time.Millisecond):
			}
		}
	})
	f()
	close(done)
	wg.Wait()
	return peak - min(peak, base.HeapInuse)
}
