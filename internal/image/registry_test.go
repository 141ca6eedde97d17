package image

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// fakeRegistry is a registry in this process that can be told to fail.
type fakeRegistry struct {
	host string

	mu        sync.Mutex           // guards what follows
	manifests map[string]testImage // "repo:tag" and "repo@digest"
	blobs     map[digest.Digest][]byte
	requests  map[string]int // by path
	fail      func(w http.ResponseWriter, r *http.Request) bool
}

func newFake(t testing.TB) *fakeRegistry {
	t.Helper()
	f := &fakeRegistry{manifests: map[string]testImage{}, blobs: map[digest.Digest][]byte{}, requests: map[string]int{}}
	srv := httptest.NewServer(f)
	t.Cleanup(func() {
		srv.CloseClientConnections()
		srv.Close()
	})
	f.host = srv.Listener.Addr().String()
	return f
}

func (f *fakeRegistry) put(repo, tag string, img testImage) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.manifests[repo+":"+tag] = img
	f.manifests[repo+"@"+img.digest().String()] = img
	for d, body := range img.blobs {
		f.blobs[d] = body
	}
}

// failWith makes every request go to fn first, which reports whether it
// answered.
func (f *fakeRegistry) failWith(fn func(w http.ResponseWriter, r *http.Request) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = fn
}

// count is the number of requests for paths that contain part.
func (f *fakeRegistry) count(part string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for path, times := range f.requests {
		if strings.Contains(path, part) {
			n += times
		}
	}
	return n
}

func (f *fakeRegistry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.requests[r.URL.Path]++
	fail := f.fail
	f.mu.Unlock()
	if fail != nil && fail(w, r) {
		return
	}
	path := strings.TrimPrefix(r.URL.Path, "/v2/")
	if repo, ref, ok := strings.Cut(path, "/manifests/"); ok {
		f.manifest(w, repo, ref)
	} else if _, d, ok := strings.Cut(path, "/blobs/"); ok {
		f.blob(w, r, digest.Digest(d))
	} else if path == "" {
		w.WriteHeader(http.StatusOK)
	} else {
		http.NotFound(w, r)
	}
}

func (f *fakeRegistry) manifest(w http.ResponseWriter, repo, ref string) {
	sep := ":"
	if strings.Contains(ref, ":") {
		sep = "@"
	}
	f.mu.Lock()
	img, ok := f.manifests[repo+sep+ref]
	f.mu.Unlock()
	if !ok {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}`)
		return
	}
	w.Header().Set("Content-Type", img.mediaType)
	_, _ = w.Write(img.manifest)
}

func (f *fakeRegistry) blob(w http.ResponseWriter, r *http.Request, d digest.Digest) {
	f.mu.Lock()
	body, ok := f.blobs[d]
	f.mu.Unlock()
	if !ok {
		http.NotFound(w, r)
		return
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
}

// realRegistry is Debian's docker-registry on a port of its own.
type realRegistry struct {
	host string
	t    testing.TB
	stop func()
}

func newRegistry(t testing.TB) *realRegistry {
	t.Helper()
	program, err := exec.LookPath("docker-registry")
	if err != nil {
		t.Fatalf("docker-registry is needed (apt-get install docker-registry): %v", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	host := l.Addr().String()
	must(t, l.Close())
	dir := t.TempDir()
	conf := write(t, dir, "config.yml", fmt.Sprintf(`version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: %q}}
http: {addr: %q}
`, filepath.Join(dir, "data"), host))
	cmd := exec.Command(program, "serve", conf)
	cmd.Stdout, cmd.Stderr = io.Discard, os.Stderr
	must(t, cmd.Start())
	stop := sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	t.Cleanup(stop)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if resp, err := http.Get("http://" + host + "/v2/"); err == nil {
			resp.Body.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("docker-registry does not answer")
		}
	}
	return &realRegistry{host, t, stop}
}

// put pushes an image over the distribution API.
func (r *realRegistry) put(repo, tag string, img testImage) {
	r.t.Helper()
	base := "http://" + r.host + "/v2/" + repo
	for d, body := range img.blobs {
		resp := r.do(http.MethodPost, base+"/blobs/uploads/", "", nil, http.StatusAccepted)
		u, err := url.Parse(resp.Header.Get("Location"))
		must(r.t, err)
		q := u.Query()
		q.Set("digest", d.String())
		u.RawQuery = q.Encode()
		r.do(http.MethodPut, u.String(), "application/octet-stream", body, http.StatusCreated)
	}
	r.do(http.MethodPut, base+"/manifests/"+tag, img.mediaType, img.manifest, http.StatusCreated)
}

func (r *realRegistry) do(method, url, contentType string, body []byte, want int) *http.Response {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), method, url, bytes.NewReader(body))
	must(r.t, err)
	req.Header.Set("Content-Type", contentType)
	resp, err := http.DefaultClient.Do(req)
	must(r.t, err)
	defer resp.Body.Close()
	if resp.StatusCode != want {
		text, _ := io.ReadAll(resp.Body)
		r.t.Fatalf("%s %s: %s: %s", method, url, resp.Status, text)
	}
	return resp
}
