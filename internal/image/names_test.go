package image

import (
	"net/http"
	"os"
	"strings"
	"testing"

	"go.podman.io/image/v5/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/internal/errkind"
)

func TestMirrors(t *testing.T) {
	down, mirror := newFake(t), newFake(t)
	down.answer("/", 503, "")
	src := buildImage(t, nil, 100)
	mirror.put("mirrored/library/nginx", "alpine", src)
	s := newService(t, withRegistries(t, `unqualified-search-registries = ["docker.io"]
[[registry]]
prefix = "docker.io"
location = "`+down.host+`"
insecure = true
[[registry.mirror]]
location = "`+down.host+`/dead"
insecure = true
[[registry.mirror]]
location = "`+mirror.host+`/mirrored"
insecure = true
`))
	img := s.pull(t, "nginx:alpine") // the seed's own command
	cri := s.CRI(img)
	if len(cri.RepoTags) != 1 || cri.RepoTags[0] != "docker.io/library/nginx:alpine" ||
		cri.RepoDigests[0] != "docker.io/library/nginx@"+src.digest().String() {
		t.Errorf("%+v", cri)
	}
	for _, ref := range []string{"nginx:alpine", "docker.io/nginx:alpine", "library/nginx:alpine", "docker.io/library/nginx:alpine", "index.docker.io/library/nginx:alpine"} {
		if _, err := s.Resolve(ref); err != nil {
			t.Error(err)
		}
	}
}

func TestCredentialsStayWithTheirRegistry(t *testing.T) {
	origin, mirror := newFake(t), newFake(t)
	src := buildImage(t, nil, 100)
	origin.put("app", "1", src)
	var leaked []string
	mirror.failWith(func(w http.ResponseWriter, r *http.Request) bool {
		if a := r.Header.Get("Authorization"); a != "" && a != "Basic Og==" { // of an empty user and password
			leaked = append(leaked, a)
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	})
	s := newService(t, withRegistries(t, `[[registry]]
location = "`+origin.host+`"
insecure = true
[[registry.mirror]]
location = "`+mirror.host+`"
insecure = true
`))
	for _, auth := range []*runtimeapi.AuthConfig{{Username: "u", Password: "p"}, {RegistryToken: "secret"}} {
		if _, err := s.Pull(t.Context(), PullRequest{Image: origin.host + "/app:1", Auth: auth}); err != nil {
			t.Error(err)
		}
	}
	if mirror.count("/") == 0 || len(leaked) != 0 {
		t.Errorf("%d requests, leaked %v", mirror.count("/"), leaked)
	}
}

func TestShortNames(t *testing.T) {
	one, two := newFake(t), newFake(t)
	src := buildImage(t, nil, 100)
	two.put("tools/app", "1", src)
	two.put("aliased/thing", "latest", src)
	conf := insecure(one.host, two.host)
	conf = strings.Replace(conf, `["docker.io"]`, `["`+one.host+`", "`+two.host+`"]`, 1) +
		"[aliases]\n\"thing\" = \"" + two.host + "/aliased/thing\"\n"
	s := newService(t, withRegistries(t, conf))
	if cri := s.CRI(s.pull(t, "tools/app:1")); cri.RepoTags[0] != two.host+"/tools/app:1" {
		t.Errorf("search: %+v", cri)
	}
	s.pull(t, "thing")
	for _, ref := range []string{"tools/app:1", "thing", "thing:latest", two.host + "/aliased/thing"} {
		if _, err := s.Resolve(ref); err != nil {
			t.Error(err)
		}
	}
	if _, err := s.Pull(t.Context(), PullRequest{Image: "nowhere:1"}); errkind.Of(err) != errkind.NotFound {
		t.Errorf("in none: %v", err)
	}
	one.answer("/", 500, "")
	if _, err := s.Pull(t.Context(), PullRequest{Image: "nowhere:1"}); errkind.Of(err) != errkind.Unavailable {
		t.Errorf("one is down: %v", err)
	}
	must(t, os.WriteFile(s.now().o.RegistriesConf, []byte("short-name-mode = \"enforcing\"\n"+conf), 0o600))
	if _, err := s.Pull(t.Context(), PullRequest{Image: "tools/app:1"}); errkind.Of(err) != errkind.Invalid {
		t.Errorf("enforcing: %v", err)
	}
}

func TestShortNameWithoutSearchRegistries(t *testing.T) {
	for name, change := range map[string]func(*Options){"no file": nil, "nothing in it": withRegistries(t, "")} {
		s := newService(t, change)
		names, err := s.now().files.remoteNames("nginx:alpine")
		if err != nil || len(names) != 1 || names[0].String() != "docker.io/library/nginx:alpine" {
			t.Errorf("%s: %v, %v", name, names, err)
		}
	}
}

func TestBlockedAndBrokenConf(t *testing.T) {
	reg := newFake(t)
	reg.put("app", "1", buildImage(t, nil, 100))
	s := newService(t, withRegistries(t, "[[registry]]\nlocation = \""+reg.host+"\"\nblocked = true\n"))
	if _, err := s.Pull(t.Context(), PullRequest{Image: reg.host + "/app:1"}); errkind.Of(err) != errkind.Denied {
		t.Errorf("blocked: %v", err)
	}
	must(t, os.WriteFile(s.now().o.RegistriesConf, []byte("[[registry\n"), 0o600))
	if _, err := s.Pull(t.Context(), PullRequest{Image: reg.host + "/app:1"}); errkind.Of(err) != errkind.Precondition {
		t.Errorf("broken: %v", err)
	}
	// A change counts at the next pull.
	must(t, os.WriteFile(s.now().o.RegistriesConf, []byte(insecure(reg.host)), 0o600))
	s.pull(t, reg.host+"/app:1")
	must(t, os.Remove(s.now().o.RegistriesConf))
	if _, err := s.Pull(t.Context(), PullRequest{Image: reg.host + "/app:1"}); errkind.Of(err) != errkind.Precondition {
		t.Errorf("missing: %v", err)
	}
	if _, err := s.Resolve(reg.host + "/app:1"); err != nil {
		t.Errorf("stored images stay: %v", err)
	}
}

func TestPolicy(t *testing.T) {
	reg := newFake(t)
	reg.put("app", "1", buildImage(t, nil, 100))
	reg.put("trusted", "1", buildImage(t, nil, 101))
	policy := write(t, t.TempDir(), "policy.json", "{broken")
	conf := withRegistries(t, insecure(reg.host))
	s := newService(t, func(o *Options) {
		conf(o)
		o.Policy = policy
	})
	check := func(image string, want errkind.Kind) {
		t.Helper()
		_, err := s.Pull(t.Context(), PullRequest{Image: reg.host + image})
		if errkind.Of(err) != want || (err == nil) != (want == errkind.Other) {
			t.Errorf("%s: %v", image, err)
		}
	}
	check("/app:1", errkind.Precondition)
	must(t, os.WriteFile(policy, []byte(`{"default":[{"type":"reject"}],
		"transports":{"docker":{"`+reg.host+`/trusted":[{"type":"insecureAcceptAnything"}]}}}`), 0o600))
	check("/app:1", errkind.Denied)
	check("/trusted:1", errkind.Other)
	must(t, os.WriteFile(policy, []byte(`{"default":[{"type":"reject"}]}`), 0o600))
	check("/trusted:1", errkind.Denied) // although it is stored
	must(t, os.Remove(policy))
	check("/app:1", errkind.Precondition)
}

func TestServerAddress(t *testing.T) {
	for address, want := range map[string]string{
		"":                            "",
		"quay.io":                     "quay.io",
		"https://quay.io/v1/":         "quay.io",
		"https://index.docker.io/v1/": "docker.io",
		"index.docker.io":             "docker.io",
		"localhost:5000":              "localhost:5000",
		"localhost:5000/v2":           "localhost:5000",
		"http://127.0.0.1:5000":       "127.0.0.1:5000",
	} {
		if got := serverHost(address); got != want {
			t.Errorf("%q: %q, want %q", address, got, want)
		}
	}
}

func TestShortNameCredentials(t *testing.T) {
	c, err := parseAuth(&runtimeapi.AuthConfig{Username: "u", Password: "p"})
	must(t, err)
	for registry, want := range map[string]bool{"docker.io": true, "quay.io": false} {
		sys := &types.SystemContext{}
		c.apply(sys, registry, false)
		if (sys.DockerAuthConfig != nil) != want {
			t.Errorf("%s: %v", registry, sys.DockerAuthConfig)
		}
	}
}

func TestPrivate(t *testing.T) {
	s := newService(t, nil)
	sys := s.now().files.system()
	for name, path := range map[string]string{
		"registries.conf": sys.SystemRegistriesConfPath, "registries.conf.d": sys.SystemRegistriesConfDirPath,
		"aliases": sys.UserShortNameAliasConfPath, "auth.json": sys.AuthFilePath, "cache": sys.BlobInfoCacheDir,
		"blobs": sys.BigFilesTemporaryDir, "certs.d": sys.DockerPerHostCertDirPath, "registries.d": sys.RegistriesDirPath,
	} {
		if !strings.HasPrefix(path, s.dir) {
			t.Errorf("%s is at %q", name, path)
		}
	}
}
