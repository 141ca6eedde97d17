package image

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	imgspec "github.com/opencontainers/image-spec/specs-go/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/internal/errkind"
	"github.com/gantry-cri/gantry/internal/id"
	"github.com/gantry-cri/gantry/internal/storage"
)

func (s *testService) pull(t testing.TB, name string) storage.Image {
	t.Helper()
	img, err := s.Pull(t.Context(), PullRequest{Image: name})
	must(t, err)
	return img
}

func TestPullFromRealRegistry(t *testing.T) {
	reg := newRegistry(t)
	src := buildImage(t, func(c *imgspec.Image) {
		c.Config.User = "1000:50"
		c.Config.Labels = map[string]string{"a": "b"}
	}, 5000, 100)
	reg.put("library/busybox", "1.36", src)
	s := newService(t, withRegistries(t, insecure(reg.host)))
	name := reg.host + "/library/busybox:1.36"
	img := s.pull(t, name)
	if "sha256:"+img.ID != src.config.String() || len(img.Layers) != 2 {
		t.Errorf("image %+v", img)
	}
	digested := reg.host + "/library/busybox@" + src.digest().String()
	cri := s.CRI(img)
	if !slices.Equal(cri.RepoTags, []string{name}) || !slices.Equal(cri.RepoDigests, []string{digested}) ||
		cri.Id != src.config.String() || cri.GetUid().GetValue() != 1000 || cri.Username != "" || cri.Size < 5100 || cri.Pinned {
		t.Errorf("CRI image %+v", cri)
	}
	for _, ref := range []string{name, digested, name + "@" + src.digest().String(), img.ID, "sha256:" + img.ID, img.ID[:13]} {
		if found, err := s.Resolve(ref); err != nil || found.ID != img.ID {
			t.Errorf("resolve %s: %v", ref, err)
		}
	}
	checkInfo(t, s, img, src)
	r, err := s.store.CreateRootFS(id.NewContainer(), img.ID, storage.RootFSOptions{})
	must(t, err)
	if body, err := s.store.ReadFile(r, "/layer0", 1<<20); err != nil || len(body) != 5000 {
		t.Errorf("content: %d bytes, %v", len(body), err)
	}
	again := s.pull(t, name)
	if again.ID != img.ID || len(s.List()) != 1 {
		t.Error("pulled again to something else")
	}
	if left, _ := os.ReadDir(filepath.Join(s.dir, "root/tmp/blobs")); len(left) != 0 {
		t.Errorf("temporary files: %v", left)
	}
}

func checkInfo(t *testing.T, s *testService, img storage.Image, src testImage) {
	t.Helper()
	verbose, err := s.Info(img)
	must(t, err)
	var got info
	must(t, json.Unmarshal([]byte(verbose["info"]), &got))
	if len(got.Layers) != len(src.layers) || got.ChainID == "" || got.Labels["a"] != "b" ||
		got.Layers[0].ChainID != got.Layers[0].DiffID || got.Layers[0].Layer != img.Layers[len(img.Layers)-1] {
		t.Errorf("info %s", verbose["info"])
	}
}

func TestPullWhatOtherToolsPush(t *testing.T) {
	for _, tool := range []string{"skopeo", "umoci"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("%s is needed (apt-get install %s)", tool, tool)
		}
	}
	reg := newRegistry(t)
	dir := t.TempDir()
	script := `set -e; cd "$1"; umoci init --layout l; umoci new --image l:t; umoci unpack --image l:t b >/dev/null
echo hello > b/rootfs/hello; umoci repack --image l:t b >/dev/null; umoci config --image l:t --config.user daemon
skopeo copy -q --dest-tls-verify=false oci:l:t docker://$2/tool/oci:1
skopeo copy -q --dest-tls-verify=false --format v2s2 oci:l:t docker://$2/tool/docker:1`
	if out, err := exec.Command("sh", "-c", script, "sh", dir, reg.host).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	s := newService(t, withRegistries(t, insecure(reg.host)))
	for _, name := range []string{"/tool/oci:1", "/tool/docker:1"} {
		img := s.pull(t, reg.host+name)
		if cri := s.CRI(img); cri.Username != "daemon" || cri.Uid != nil {
			t.Errorf("%s: user %+v", name, cri)
		}
		r, err := s.store.CreateRootFS(id.NewContainer(), img.ID, storage.RootFSOptions{})
		must(t, err)
		if body, err := s.store.ReadFile(r, "/hello", 100); err != nil || string(body) != "hello\n" {
			t.Errorf("%s: %q, %v", name, body, err)
		}
	}
}

func TestPullByDigestAndIndex(t *testing.T) {
	reg := newFake(t)
	src := buildImage(t, nil, 100)
	top := indexOf(t, src)
	reg.put("multi", "inner", src)
	reg.put("multi", "1", top)
	s := newService(t, withRegistries(t, insecure(reg.host)))
	byDigest := reg.host + "/multi@" + top.digest().String()
	img := s.pull(t, byDigest)
	if cri := s.CRI(img); len(cri.RepoTags) != 0 || !slices.Equal(cri.RepoDigests, []string{byDigest}) {
		t.Errorf("by digest: %+v", cri)
	}
	img = s.pull(t, reg.host+"/multi:1")
	if cri := s.CRI(img); !slices.Equal(cri.RepoTags, []string{reg.host + "/multi:1"}) || !slices.Equal(cri.RepoDigests, []string{byDigest}) {
		t.Errorf("by tag: %+v", cri)
	}
	// The platform's own manifest names it too.
	if found, err := s.Resolve(reg.host + "/multi@" + src.digest().String()); err != nil || found.ID != img.ID {
		t.Errorf("by inner digest: %v", err)
	}
	if n := reg.count("/blobs/" + src.layers[0].String()); n != 1 {
		t.Errorf("layer fetched %d times", n)
	}
}

func TestTagMoves(t *testing.T) {
	reg := newFake(t)
	one, two := buildImage(t, nil, 100), buildImage(t, nil, 200)
	reg.put("app", "latest", one)
	s := newService(t, withRegistries(t, insecure(reg.host)))
	old := s.pull(t, reg.host+"/app")
	reg.put("app", "latest", two)
	fresh := s.pull(t, reg.host+"/app")
	if old.ID == fresh.ID || len(s.List()) != 2 {
		t.Fatalf("%d images", len(s.List()))
	}
	left, err := s.Resolve(old.ID)
	must(t, err)
	if cri := s.CRI(left); len(cri.RepoTags) != 0 || !slices.Equal(cri.RepoDigests, []string{reg.host + "/app@" + one.digest().String()}) {
		t.Errorf("old image: %+v", cri)
	}
	if found, err := s.Resolve(reg.host + "/app:latest"); err != nil || found.ID != fresh.ID {
		t.Errorf("tag: %v", err)
	}
}

func TestSecondTagIsQuick(t *testing.T) {
	reg := newFake(t)
	src := buildImage(t, nil, 1<<20)
	reg.put("app", "1", src)
	reg.put("app", "2", src)
	reg.put("other", "1", src)
	s := newService(t, withRegistries(t, insecure(reg.host)))
	s.pull(t, reg.host+"/app:1")
	start := time.Now()
	img := s.pull(t, reg.host+"/app:2")
	t.Logf("second tag: %s", time.Since(start))
	start = time.Now()
	s.pull(t, reg.host+"/other:1")
	t.Logf("second repository: %s", time.Since(start))
	if n := reg.count("/blobs/" + src.layers[0].String()); n != 1 {
		t.Errorf("layer fetched %d times", n)
	}
	if cri := s.CRI(img); len(cri.RepoTags) != 2 {
		t.Errorf("%+v", cri)
	}
}

func TestConcurrentPullsAreOneTransfer(t *testing.T) {
	reg := newFake(t)
	src := buildImage(t, nil, 1000, 1000)
	reg.put("app", "1", src)
	release := reg.holdBlobs()
	s := newService(t, withRegistries(t, insecure(reg.host)))
	// The first caller gives up; the transfer goes on.
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := s.Pull(ctx, PullRequest{Image: reg.host + "/app:1"}); errkind.Of(err) != errkind.Timeout {
		t.Errorf("caller's deadline: %v", err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := s.Pull(t.Context(), PullRequest{Image: reg.host + "/app:1"}); err != nil {
				t.Error(err)
			}
		})
	}
	time.Sleep(100 * time.Millisecond)
	if start := time.Now(); len(s.List()) != 0 || time.Since(start) > 5*time.Second {
		t.Error("List waits or shows a part")
	}
	release()
	wg.Wait()
	if n := reg.count("/blobs/"); n != 3 {
		t.Errorf("%d blob requests, want 3", n)
	}
	if n := reg.count("/manifests/"); n != 1 {
		t.Errorf("%d manifest requests, want 1", n)
	}
}

func TestOtherCredentialsAreAnotherTransfer(t *testing.T) {
	reg := newFake(t)
	reg.put("app", "1", buildImage(t, nil, 100))
	reg.requireLogin("user", "right")
	s := newService(t, withRegistries(t, insecure(reg.host)))
	var wg sync.WaitGroup
	for _, password := range []string{"right", "wrong"} {
		wg.Go(func() {
			_, err := s.Pull(t.Context(), PullRequest{Image: reg.host + "/app:1", Auth: &runtimeapi.AuthConfig{Username: "user", Password: password}})
			if password == "right" && err != nil || password == "wrong" && errkind.Of(err) != errkind.Denied {
				t.Errorf("%s: %v", password, err)
			}
		})
	}
	wg.Wait()
}

func TestRemove(t *testing.T) {
	reg := newFake(t)
	src := buildImage(t, nil, 100)
	reg.put("app", "1", src)
	reg.put("app", "2", src)
	s := newService(t, withRegistries(t, insecure(reg.host)))
	s.pull(t, reg.host+"/app:1")
	img := s.pull(t, reg.host+"/app:2")
	r, err := s.store.CreateRootFS(id.NewContainer(), img.ID, storage.RootFSOptions{})
	must(t, err)
	for range 2 {
		must(t, s.Remove(t.Context(), reg.host+"/app:1"))
	}
	if len(s.List()) != 0 {
		t.Errorf("left: %+v", s.List())
	}
	if body, err := s.store.ReadFile(r, "/layer0", 1000); err != nil || len(body) != 100 {
		t.Errorf("container's layers: %v", err)
	}
	// Pulled again while the container still holds the layers: nothing is fetched.
	before := reg.count("/blobs/" + src.layers[0].String())
	s.pull(t, reg.host+"/app:1")
	if reg.count("/blobs/"+src.layers[0].String()) != before || len(s.List()) != 1 {
		t.Error("pulled again from scratch, or not listed")
	}
	if cri := s.CRI(s.List()[0]); len(cri.RepoTags) != 1 {
		t.Errorf("old names came back: %+v", cri)
	}
	must(t, s.store.RemoveRootFS(r.Container))
	must(t, s.Remove(t.Context(), img.ID))
	if err := s.Remove(t.Context(), "not a name"); errkind.Of(err) != errkind.Invalid {
		t.Errorf("bad name: %v", err)
	}
}

func TestPinned(t *testing.T) {
	reg := newFake(t)
	reg.put("pause", "1", buildImage(t, nil, 100))
	conf := withRegistries(t, insecure(reg.host))
	s := newService(t, func(o *Options) {
		conf(o)
		o.Pinned = []string{reg.host + "/pause:1"}
	})
	if !s.CRI(s.pull(t, reg.host+"/pause:1")).Pinned {
		t.Error("not pinned")
	}
}

// TestConfigure: other options hold from the next pull on; a pull under way ends
// with its own, and options that can't be used change nothing.
func TestConfigure(t *testing.T) {
	reg := newFake(t)
	reg.put("app", "1", buildImage(t, nil, 100))
	reg.put("app", "2", buildImage(t, nil, 5000))
	s := newService(t, withRegistries(t, ""))
	if _, err := s.Pull(t.Context(), PullRequest{Image: reg.host + "/app:1"}); err == nil {
		t.Fatal("pulled without TLS")
	}
	o := s.now().o
	withRegistries(t, insecure(reg.host))(&o)
	o.MaxDownloads = 1
	must(t, s.Configure(o))
	img := s.pull(t, reg.host+"/app:1")
	if s.Pinned(img) {
		t.Error("pinned by nothing")
	}

	bad := o
	bad.Pinned = []string{reg.host + "/*", "NO NAME"}
	if err := s.Configure(bad); err == nil || s.Pinned(img) {
		t.Errorf("of a bad pattern: %v; pinned %v", err, s.Pinned(img))
	}
	o.Pinned = bad.Pinned[:1]
	o.Limits.LayerBytes = 1
	must(t, s.Configure(o))
	if !s.Pinned(img) {
		t.Error("not pinned by the new options")
	}
	if _, err := s.Pull(t.Context(), PullRequest{Image: reg.host + "/app:2"}); err == nil {
		t.Error("the new limit does not hold")
	}
}

func TestResolveErrors(t *testing.T) {
	reg := newFake(t)
	for i := range 20 { // two of them start with the same digit
		reg.put("app", "v"+string(rune('a'+i)), buildImage(t, nil, 10+i))
	}
	s := newService(t, withRegistries(t, insecure(reg.host)))
	for i := range 20 {
		s.pull(t, reg.host+"/app:v"+string(rune('a'+i)))
	}
	for ref, want := range map[string]errkind.Kind{
		"busybox":                           errkind.NotFound,
		reg.host + "/app:nope":              errkind.NotFound,
		strings.Repeat("0", 64):             errkind.NotFound,
		"sha256:" + strings.Repeat("0", 64): errkind.NotFound,
		"sha256:xyz":                        errkind.Invalid,
		"UPPER/case":                        errkind.Invalid,
		"":                                  errkind.Invalid,
		"a b":                               errkind.Invalid,
		"busybox@sha256:123":                errkind.Invalid,
		"../../etc/passwd":                  errkind.Invalid,
		strings.Repeat("x", 5000):           errkind.Invalid,
		reg.host + "/app@sha256:" + strings.Repeat("0", 64): errkind.NotFound,
	} {
		if _, err := s.Resolve(ref); errkind.Of(err) != want {
			t.Errorf("%.80q: %v", ref, err)
		}
	}
}

func BenchmarkResolve(b *testing.B) {
	reg := newFake(b)
	reg.put("app", "1", buildImage(b, nil, 10))
	s := newService(b, withRegistries(b, insecure(reg.host)))
	img := s.pull(b, reg.host+"/app:1")
	for name, ref := range map[string]string{"name": reg.host + "/app:1", "short": "busybox", "id": "sha256:" + img.ID} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				_, _ = s.Resolve(ref)
			}
		})
	}
}

// BenchmarkPull is the 97 MB image of two layers, gzip, from docker-registry.
func BenchmarkPull(b *testing.B) {
	reg := newRegistry(b)
	src := buildImage(b, nil, 30<<20, 67<<20)
	reg.put("app", "1", src)
	for b.Loop() {
		s := newService(b, withRegistries(b, insecure(reg.host)))
		s.pull(b, reg.host+"/app:1")
	}
}
