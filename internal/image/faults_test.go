package image

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/internal/errkind"
)

// holdBlobs makes every blob request wait for release.
func (f *fakeRegistry) holdBlobs() (release func()) {
	gate := make(chan struct{})
	f.failWith(func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/blobs/") {
			select {
			case <-gate:
			case <-r.Context().Done():
			}
		}
		return false
	})
	return sync.OnceFunc(func() { close(gate) })
}

func (f *fakeRegistry) requireLogin(user, password string) {
	f.failWith(func(w http.ResponseWriter, r *http.Request) bool {
		if u, p, ok := r.BasicAuth(); ok && u == user && p == password {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	})
}

// answer makes requests whose path contains part fail with a status.
func (f *fakeRegistry) answer(part string, status int, body string) {
	f.failWith(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, part) {
			return false
		}
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
		return true
	})
}

func TestFaults(t *testing.T) {
	html := "<html>no JSON here</html>"
	for name, c := range map[string]struct {
		prepare func(f *fakeRegistry)
		image   string
		want    errkind.Kind
	}{
		"no such tag":            {image: "/app:nope", want: errkind.NotFound},
		"no such repository":     {image: "/nope:1", want: errkind.NotFound},
		"404 without JSON":       {prepare: func(f *fakeRegistry) { f.answer("/manifests/", 404, html) }, want: errkind.NotFound},
		"401":                    {prepare: func(f *fakeRegistry) { f.requireLogin("a", "b") }, want: errkind.Denied},
		"403 without JSON":       {prepare: func(f *fakeRegistry) { f.answer("/manifests/", 403, html) }, want: errkind.Denied},
		"403 denied":             {prepare: func(f *fakeRegistry) { f.answer("/manifests/", 403, `{"errors":[{"code":"DENIED"}]}`) }, want: errkind.Denied},
		"500":                    {prepare: func(f *fakeRegistry) { f.answer("/manifests/", 500, html) }, want: errkind.Unavailable},
		"503 of a blob":          {prepare: func(f *fakeRegistry) { f.answer("/blobs/", 503, html) }, want: errkind.Unavailable},
		"404 of a blob":          {prepare: func(f *fakeRegistry) { f.answer("/blobs/", 404, html) }, want: errkind.NotFound},
		"bad reference":          {image: "/UPPER:1", want: errkind.Invalid},
		"connection cut in blob": {prepare: (*fakeRegistry).cutBlobs, want: errkind.Unavailable},
		"corrupt blob":           {prepare: (*fakeRegistry).corruptBlobs, want: errkind.Unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg := newFake(t)
			src := buildImage(t, nil, 100<<10)
			reg.put("app", "1", src)
			if c.prepare != nil {
				c.prepare(reg)
			}
			if c.image == "" {
				c.image = "/app:1"
			}
			s := newService(t, withRegistries(t, insecure(reg.host)))
			_, err := s.Pull(t.Context(), PullRequest{Image: reg.host + c.image})
			if errkind.Of(err) != c.want {
				t.Fatalf("kind %v, want %v: %v", errkind.Of(err), c.want, err)
			}
			t.Log(err)
			// Nothing stays, and the fault is over with its cause.
			if len(s.List()) != 0 {
				t.Error("an image is listed")
			}
			if left, _ := os.ReadDir(filepath.Join(s.dir, "root/tmp/blobs")); len(left) != 0 {
				t.Errorf("temporary files: %v", left)
			}
			reg.failWith(nil)
			reg.put("app", "1", src)
			s.pull(t, reg.host+"/app:1")
		})
	}
}

func (f *fakeRegistry) cutBlobs() {
	f.failWith(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/blobs/") {
			return false
		}
		w.Header().Set("Content-Length", "100000")
		_, _ = w.Write(make([]byte, 1000))
		panic(http.ErrAbortHandler)
	})
}

func (f *fakeRegistry) corruptBlobs() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for d, body := range f.blobs {
		changed := append([]byte(nil), body...)
		changed[len(changed)/2] ^= 1
		f.blobs[d] = changed
	}
}

func TestRegistryDown(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	host := l.Addr().String()
	must(t, l.Close())
	s := newService(t, withRegistries(t, insecure(host)))
	start := time.Now()
	_, err = s.Pull(t.Context(), PullRequest{Image: host + "/app:1"})
	if errkind.Of(err) != errkind.Unavailable || time.Since(start) > 20*time.Second {
		t.Errorf("after %s: %v", time.Since(start), err)
	}
}

func TestStall(t *testing.T) {
	for _, part := range []string{"/v2/", "/manifests/", "/blobs/"} {
		t.Run(part, func(t *testing.T) {
			reg := newFake(t)
			src := buildImage(t, nil, 1<<20)
			reg.put("app", "1", src)
			reg.failWith(func(w http.ResponseWriter, r *http.Request) bool {
				isBlob := strings.Contains(r.URL.Path, "/blobs/")
				if !strings.Contains(r.URL.Path, part) || isBlob && !strings.Contains(r.URL.Path, src.layers[0].String()) {
					return false
				}
				if isBlob {
					w.Header().Set("Content-Length", "1000000")
					_, _ = w.Write(make([]byte, 1000))
					_ = http.NewResponseController(w).Flush()
				}
				<-r.Context().Done()
				return true
			})
			conf := withRegistries(t, insecure(reg.host))
			s := newService(t, func(o *Options) {
				conf(o)
				o.StallTimeout = 300 * time.Millisecond
			})
			start := time.Now()
			_, err := s.Pull(t.Context(), PullRequest{Image: reg.host + "/app:1"})
			if errkind.Of(err) != errkind.Timeout || time.Since(start) > 20*time.Second {
				t.Errorf("after %s: %v", time.Since(start), err)
			}
		})
	}
}

func TestSlowIsNoStall(t *testing.T) {
	reg := newFake(t)
	src := buildImage(t, nil, 10)
	reg.put("app", "1", src)
	reg.failWith(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, src.layers[0].String()) {
			return false
		}
		for _, b := range src.blobs[src.layers[0]] {
			_, _ = w.Write([]byte{b})
			_ = http.NewResponseController(w).Flush()
			time.Sleep(10 * time.Millisecond)
		}
		return true
	})
	conf := withRegistries(t, insecure(reg.host))
	s := newService(t, func(o *Options) {
		conf(o)
		o.StallTimeout = 500 * time.Millisecond
	})
	start := time.Now()
	s.pull(t, reg.host+"/app:1")
	if time.Since(start) < time.Second {
		t.Errorf("the test was not slow: %s", time.Since(start))
	}
}

func TestNoSpace(t *testing.T) {
	for name, size := range map[string]string{"while downloading": "size=2m", "while unpacking": "size=3m"} {
		t.Run(name, func(t *testing.T) {
			reg := newFake(t)
			reg.put("app", "1", buildImage(t, nil, 4<<20))
			dir := t.TempDir()
			must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, size))
			defer func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) }()
			s := openService(t, dir, withRegistries(t, insecure(reg.host)))
			defer s.close(t)
			_, err := s.Pull(t.Context(), PullRequest{Image: reg.host + "/app:1"})
			if errkind.Of(err) != errkind.Exhausted {
				t.Errorf("%v", err)
			}
			if len(s.List()) != 0 {
				t.Error("an image is listed")
			}
		})
	}
}

func TestClosePromptly(t *testing.T) {
	reg := newFake(t)
	reg.put("app", "1", buildImage(t, nil, 1000))
	defer reg.holdBlobs()()
	s := openService(t, t.TempDir(), withRegistries(t, insecure(reg.host)))
	failed := make(chan error, 1)
	go func() {
		_, err := s.Pull(t.Context(), PullRequest{Image: reg.host + "/app:1"})
		failed <- err
	}()
	for reg.count("/blobs/") == 0 {
		time.Sleep(time.Millisecond)
	}
	s.close(t)
	if err := <-failed; errkind.Of(err) != errkind.Unavailable {
		t.Error(err)
	}
}

func TestAuth(t *testing.T) {
	for name, auth := range map[string]*runtimeapi.AuthConfig{
		"username":  {Username: "user", Password: "pass"},
		"auth":      {Auth: "dXNlcjpwYXNz"},
		"auth.json": nil,
		"empty":     {},
	} {
		t.Run(name, func(t *testing.T) {
			reg := newFake(t)
			reg.put("app", "1", buildImage(t, nil, 100))
			reg.requireLogin("user", "pass")
			conf := withRegistries(t, insecure(reg.host))
			file := write(t, t.TempDir(), "auth.json", `{"auths":{"`+reg.host+`":{"auth":"dXNlcjpwYXNz"}}}`)
			s := newService(t, func(o *Options) {
				conf(o)
				if auth.GetUsername() == "" && auth.GetAuth() == "" {
					o.AuthFile = file
				}
			})
			_, err := s.Pull(t.Context(), PullRequest{Image: reg.host + "/app:1", Auth: auth})
			must(t, err)
		})
	}
}

func TestAuthTokens(t *testing.T) {
	reg := newFake(t)
	reg.put("app", "1", buildImage(t, nil, 100))
	token := func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/token" {
			if r.FormValue("refresh_token") != "identity" {
				w.WriteHeader(http.StatusUnauthorized)
				return true
			}
			_, _ = w.Write([]byte(`{"access_token":"bearer"}`))
			return true
		}
		if r.Header.Get("Authorization") == "Bearer bearer" {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+reg.host+`/token",service="x"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}
	reg.failWith(token)
	for name, c := range map[string]struct {
		auth *runtimeapi.AuthConfig
		want errkind.Kind
	}{
		"registry token":       {&runtimeapi.AuthConfig{RegistryToken: "bearer"}, errkind.Other},
		"identity token":       {&runtimeapi.AuthConfig{IdentityToken: "identity"}, errkind.Other},
		"wrong":                {&runtimeapi.AuthConfig{IdentityToken: "other"}, errkind.Denied},
		"none":                 {nil, errkind.Denied},
		"for another registry": {&runtimeapi.AuthConfig{RegistryToken: "bearer", ServerAddress: "https://quay.io"}, errkind.Denied},
		"for this registry":    {&runtimeapi.AuthConfig{RegistryToken: "bearer", ServerAddress: "https://" + reg.host + "/v2/"}, errkind.Other},
		"not base64":           {&runtimeapi.AuthConfig{Auth: "%"}, errkind.Invalid},
	} {
		t.Run(name, func(t *testing.T) {
			s := newService(t, withRegistries(t, insecure(reg.host)))
			_, err := s.Pull(t.Context(), PullRequest{Image: reg.host + "/app:1", Auth: c.auth})
			if errkind.Of(err) != c.want || (err == nil) != (c.want == errkind.Other) {
				t.Errorf("%v", err)
			}
		})
	}
}
