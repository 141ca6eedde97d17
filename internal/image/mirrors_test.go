package image

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gantry-cri/gantry/internal/errkind"
)

// mirrored is a registries.conf in which each mirror is asked before origin.
func mirrored(origin string, mirrors ...string) string {
	conf := fmt.Sprintf("[[registry]]\nlocation = %q\ninsecure = true\n", origin)
	for _, m := range mirrors {
		conf += fmt.Sprintf("[[registry.mirror]]\nlocation = %q\ninsecure = true\n", m)
	}
	return conf
}

// TestMirrorFailsOver: whatever is wrong with a mirror, and whenever, the next
// server is asked, and nothing of what the mirror sent stays.
func TestMirrorFailsOver(t *testing.T) {
	for name, spoil := range map[string]func(*fakeRegistry){
		"503":                    func(f *fakeRegistry) { f.answer("/", 503, "") },
		"503 of blobs":           func(f *fakeRegistry) { f.answer("/blobs/", 503, "") },
		"without blobs":          func(f *fakeRegistry) { f.answer("/blobs/", 404, "") },
		"wants a login":          func(f *fakeRegistry) { f.requireLogin("a", "b") },
		"cuts connections":       (*fakeRegistry).cutBlobs,
		"corrupt blobs":          (*fakeRegistry).corruptBlobs,
		"stalls at the manifest": func(f *fakeRegistry) { f.stall("/manifests/") },
		"stalls in a blob":       func(f *fakeRegistry) { f.stall("/blobs/") },
		"another manifest": func(f *fakeRegistry) {
			other := buildImage(t, nil, 50<<10)
			other.blobs = nil
			f.put("m/app", "1", other)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			origin, mirror := newFake(t), newFake(t)
			src := buildImage(t, nil, 100<<10, 10)
			origin.put("app", "1", src)
			mirror.put("m/app", "1", src)
			spoil(mirror)
			s := newService(t, func(o *Options) {
				withRegistries(t, mirrored(origin.host, mirror.host+"/m"))(o)
				o.StallTimeout = 2 * time.Second
			})
			img := s.pull(t, origin.host+"/app:1")
			if img.ID != src.config.Encoded() || len(s.List()) != 1 || mirror.count("/") == 0 {
				t.Errorf("image %+v of %d, %d requests to the mirror", img, len(s.List()), mirror.count("/"))
			}
			if left, _ := os.ReadDir(filepath.Join(s.dir, "root/tmp/blobs")); len(left) != 0 {
				t.Errorf("temporary files: %v", left)
			}
		})
	}
}

// stall makes requests whose path contains part wait until their client gives up.
func (f *fakeRegistry) stall(part string) {
	f.failWith(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, part) {
			return false
		}
		<-r.Context().Done()
		return true
	})
}

// TestMirrorsAllFail: the error has the kind of what the registry itself says,
// and tells of each server.
func TestMirrorsAllFail(t *testing.T) {
	origin, mirror := newFake(t), newFake(t)
	mirror.answer("/", 503, "")
	s := newService(t, withRegistries(t, mirrored(origin.host, mirror.host+"/m")))
	_, err := s.Pull(t.Context(), PullRequest{Image: origin.host + "/app:1"})
	if errkind.Of(err) != errkind.NotFound || !strings.Contains(err.Error(), mirror.host+"/m/app") {
		t.Errorf("kind %v: %v", errkind.Of(err), err)
	}
}

// TestProgress: a transfer under way tells where its bytes come from and how
// many there are to come.
func TestProgress(t *testing.T) {
	origin, mirror := newFake(t), newFake(t)
	src := buildImage(t, nil, 100<<10, 200<<10)
	mirror.put("m/app", "1", src)
	release := mirror.holdLayers(src)
	defer release()
	s := newService(t, withRegistries(t, mirrored(origin.host, mirror.host+"/m")))
	done := make(chan error, 1)
	go func() {
		_, err := s.Pull(t.Context(), PullRequest{Image: origin.host + "/app:1"})
		done <- err
	}()
	total := 0
	for _, l := range src.layers {
		total += len(src.blobs[l])
	}
	var now Progress
	for deadline := time.Now().Add(20 * time.Second); now.Layers != 2; time.Sleep(time.Millisecond) {
		if list := s.Pulls(); len(list) == 1 {
			now = list[0]
		}
		if time.Now().After(deadline) {
			t.Fatalf("no layers yet: %+v", now)
		}
	}
	if now.Image != origin.host+"/app:1" || now.From != mirror.host+"/m/app" || now.Total != int64(total) || now.LayersDone != 0 {
		t.Errorf("%+v, want %d bytes", now, total)
	}
	release()
	must(t, <-done)
	if list := s.Pulls(); len(list) != 0 {
		t.Errorf("pulls after the end: %v", list)
	}
}

// holdLayers makes requests for layers wait for release.
func (f *fakeRegistry) holdLayers(img testImage) (release func()) {
	gate := make(chan struct{})
	f.failWith(func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/blobs/") && !strings.HasSuffix(r.URL.Path, img.config.String()) {
			select {
			case <-gate:
			case <-r.Context().Done():
			}
		}
		return false
	})
	return sync.OnceFunc(func() { close(gate) })
}
