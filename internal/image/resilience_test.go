package image

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/gantry-cri/gantry/internal/errkind"
)

// TestResumeByRanges: a registry cuts each connection early. What was received
// is not asked for again, where it has ranges.
func TestResumeByRanges(t *testing.T) {
	for name, ranges := range map[string]bool{"with ranges": true, "without": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg := newFake(t)
			src := buildImage(t, nil, 3<<20)
			reg.put("app", "1", src)
			blob := src.blobs[src.layers[0]]
			var sent, requests, ranged atomic.Int64
			reg.failWith(func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.Contains(r.URL.Path, src.layers[0].String()) {
					return false
				}
				from := 0
				if part, ok := strings.CutPrefix(r.Header.Get("Range"), "bytes="); ok && ranges {
					from, _ = strconv.Atoi(strings.TrimSuffix(part, "-"))
					ranged.Add(1)
					w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(blob)-1, len(blob)))
				}
				w.Header().Set("Content-Length", strconv.Itoa(len(blob)-from))
				if from > 0 {
					w.WriteHeader(http.StatusPartialContent)
				}
				to := min(len(blob), from+300<<10)
				if n := int(requests.Add(1)); !ranges {
					to = min(len(blob), n*800<<10) // or it would never end
				}
				n, _ := w.Write(blob[from:to])
				sent.Add(int64(n))
				if to < len(blob) {
					panic(http.ErrAbortHandler)
				}
				return true
			})
			s := newService(t, withRegistries(t, insecure(reg.host)))
			s.pull(t, reg.host+"/app:1")
			t.Logf("a blob of %d bytes: %d requests, %d of them ranges, %d bytes sent", len(blob), requests.Load(), ranged.Load(), sent.Load())
			if limit := int64(len(blob)) * 21 / 20; ranges && (sent.Load() > limit || ranged.Load() != requests.Load()-1 || requests.Load() < 10) {
				t.Error("received bytes were asked for again")
			}
		})
	}
}

// TestRetryAfter: a registry that asks to be left alone for longer than the
// stall timeout gets its will.
func TestRetryAfter(t *testing.T) {
	for _, part := range []string{"/manifests/", "/blobs/"} {
		t.Run(part, func(t *testing.T) {
			t.Parallel()
			reg := newFake(t)
			reg.put("app", "1", buildImage(t, nil, 1000))
			var mu sync.Mutex
			var times []time.Time
			reg.failWith(func(w http.ResponseWriter, r *http.Request) bool {
				mu.Lock()
				defer mu.Unlock()
				if !strings.Contains(r.URL.Path, part) {
					return false
				}
				times = append(times, time.Now())
				if len(times) > 2 {
					return false
				}
				w.Header().Set("Retry-After", "2")
				w.WriteHeader(http.StatusTooManyRequests)
				return true
			})
			conf := withRegistries(t, insecure(reg.host))
			s := newService(t, func(o *Options) {
				conf(o)
				o.StallTimeout = time.Second
			})
			s.pull(t, reg.host+"/app:1")
			for i := range 2 {
				if pause := times[i+1].Sub(times[i]); pause < 2*time.Second {
					t.Errorf("asked again after %s", pause)
				}
			}
		})
	}
}

// TestErrorsPass: a registry fails a few times, and then does not.
func TestErrorsPass(t *testing.T) {
	for _, status := range []int{500, 502, 503, 504} {
		for _, part := range []string{"/v2/", "/manifests/", "/blobs/"} {
			t.Run(fmt.Sprint(status, part), func(t *testing.T) {
				t.Parallel()
				reg := newFake(t)
				reg.put("app", "1", buildImage(t, nil, 1000))
				var failed atomic.Int64
				reg.failWith(func(w http.ResponseWriter, r *http.Request) bool {
					if !strings.Contains(r.URL.Path, part) || failed.Add(1) > 2 {
						return false
					}
					w.WriteHeader(status)
					return true
				})
				s := newService(t, withRegistries(t, insecure(reg.host)))
				s.pull(t, reg.host+"/app:1")
				if failed.Load() < 3 {
					t.Errorf("asked %d times", failed.Load())
				}
			})
		}
	}
}

// TestDownloadsPerRegistry: the limit is for all pulls from a registry
// together.
func TestDownloadsPerRegistry(t *testing.T) {
	reg := newFake(t)
	for i := range 4 {
		reg.put("app", fmt.Sprint(i), buildImage(t, nil, 1000+i, 2000+i, 3000+i))
	}
	var now, most, layers atomic.Int64
	reg.failWith(func(w http.ResponseWriter, r *http.Request) bool {
		_, d, ok := strings.Cut(r.URL.Path, "/blobs/")
		reg.mu.Lock()
		body := reg.blobs[digest.Digest(d)]
		reg.mu.Unlock()
		if !ok || !bytes.HasPrefix(body, gzipMagic) { // no layer
			return false
		}
		layers.Add(1)
		n := now.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		time.Sleep(20 * time.Millisecond) // for others to come
		_, _ = w.Write(body)
		now.Add(-1)
		return true
	})
	conf := withRegistries(t, insecure(reg.host))
	s := newService(t, func(o *Options) {
		conf(o)
		o.MaxDownloads = 2
	})
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			if _, err := s.Pull(t.Context(), PullRequest{Image: fmt.Sprintf("%s/app:%d", reg.host, i)}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if layers.Load() != 12 || most.Load() > 2 {
		t.Errorf("%d layers, %d at a time, want 12 and 2", layers.Load(), most.Load())
	}
}

// TestDeadMirror: nobody listens there, or its name is unknown.
func TestDeadMirror(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	closed := l.Addr().String()
	must(t, l.Close())
	origin := newFake(t)
	src := buildImage(t, nil, 1000)
	origin.put("app", "1", src)
	s := newService(t, withRegistries(t, mirrored(origin.host, closed, "mirror.invalid")))
	start := time.Now()
	if img := s.pull(t, origin.host+"/app:1"); img.ID != src.config.Encoded() {
		t.Errorf("image %s", img.ID)
	}
	t.Logf("after %s", time.Since(start))
}

// TestLyingBlobs: what a registry sends is not what the manifest names.
func TestLyingBlobs(t *testing.T) {
	other := gzipped(t, tarOf(t, "other", []byte("other")))
	for name, lie := range map[string]func(body []byte) []byte{
		"longer":  func(body []byte) []byte { return append(append([]byte(nil), body...), body...) },
		"shorter": func(body []byte) []byte { return body[:len(body)/2] },
		"empty":   func([]byte) []byte { return nil },
		"another": func([]byte) []byte { return other },
		"one bit": func(body []byte) []byte {
			changed := append([]byte(nil), body...)
			changed[len(changed)-3] ^= 1
			return changed
		},
	} {
		for _, part := range []string{"layer", "configuration"} {
			t.Run(name+" "+part, func(t *testing.T) {
				t.Parallel()
				reg := newFake(t)
				src := buildImage(t, nil, 1000)
				reg.put("app", "1", src)
				reg.mu.Lock()
				d := src.layers[0]
				if part == "configuration" {
					d = src.config
				}
				reg.blobs[d] = lie(src.blobs[d])
				reg.mu.Unlock()
				s := newService(t, withRegistries(t, insecure(reg.host)))
				_, err := s.Pull(t.Context(), PullRequest{Image: reg.host + "/app:1"})
				if errkind.Of(err) != errkind.Unavailable {
					t.Errorf("kind %v: %v", errkind.Of(err), err)
				}
				s.checkEmpty(t)
			})
		}
	}
}

// TestBlobOfAnotherLayer: it is what the manifest names, but not what the
// configuration does.
func TestBlobOfAnotherLayer(t *testing.T) {
	raw := tarOf(t, "a", []byte("a"))
	refused(t, imageOf(t, gzipped(t, raw), digest.FromString("another")), errkind.Invalid, nil)
}
