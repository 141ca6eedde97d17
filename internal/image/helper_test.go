package image

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/internal/errkind"
)

// helperScript answers as its argument, the registry, wants it: see
// TestCredentialHelpers. It tells each question to a file.
const helperScript = `#!/bin/sh
read server
echo "$1 $server" >> "$(dirname "$0")/asked"
case $(cat "$(dirname "$0")/mode") in
login) echo '{"ServerURL":"x","Username":"user","Secret":"pass"}' ;;
wrong) echo '{"ServerURL":"x","Username":"user","Secret":"wrong"}' ;;
unknown) echo "credentials not found in native keychain"; exit 1 ;;
fails) echo "the vault is sealed"; exit 3 ;;
nonsense) echo "<html>" ;;
floods) yes | head -c 10000000 ;;
hangs) sleep 1000 & sleep 1000 ;;
esac
`

// helperDir puts the helpers "first" and "second" into PATH.
func helperDir(t *testing.T, mode string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"first", "second"} {
		write(t, dir, name+"/docker-credential-"+name, helperScript)
		must(t, os.Chmod(filepath.Join(dir, name, "docker-credential-"+name), 0o755))
		write(t, dir, name+"/mode", mode)
		t.Setenv("PATH", filepath.Join(dir, name)+":"+os.Getenv("PATH"))
	}
	return dir
}

func asked(t *testing.T, dir, name string) string {
	t.Helper()
	body, err := os.ReadFile(filepath.Join(dir, name, "asked"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(body))
}

func TestCredentialHelpers(t *testing.T) {
	for _, c := range []struct {
		name, conf, mode, says string
		want                   errkind.Kind // Other: pulled
		asked                  string       // the helper that must be; "" if none
	}{
		{"of the registry", `{"credHelpers":{"HOST":"first"},"credsStore":"second"}`, "login", "", errkind.Other, "first"},
		{"of all registries", `{"credHelpers":{"quay.io":"first"},"credsStore":"second"}`, "login", "", errkind.Other, "second"},
		{"of another registry", `{"credHelpers":{"quay.io":"first"}}`, "login", "authentication required", errkind.Denied, ""},
		{"with wrong credentials", `{"credsStore":"first"}`, "wrong", "authentication required", errkind.Denied, "first"},
		{"without credentials", `{"credsStore":"first"}`, "unknown", "authentication required", errkind.Denied, "first"},
		{"without but the file has them", `{"credsStore":"first","auths":{"HOST":{"auth":"dXNlcjpwYXNz"}}}`, "unknown", "", errkind.Other, "first"},
		{"that fails", `{"credHelpers":{"HOST":"first"}}`, "fails", "the vault is sealed", errkind.Precondition, "first"},
		{"that talks nonsense", `{"credHelpers":{"HOST":"first"}}`, "nonsense", "docker-credential-first", errkind.Precondition, "first"},
		{"that floods", `{"credHelpers":{"HOST":"first"}}`, "floods", "docker-credential-first", errkind.Precondition, "first"},
		{"that hangs", `{"credHelpers":{"HOST":"first"}}`, "hangs", "docker-credential-first for", errkind.Timeout, "first"},
		{"that does not exist", `{"credHelpers":{"HOST":"no-such"}}`, "", "docker-credential-no-such", errkind.Precondition, ""},
		{"that is a path", `{"credHelpers":{"HOST":"../first"}}`, "", "not a name", errkind.Precondition, ""},
		{"in a broken file", `{"credHelpers":`, "", "auth.json", errkind.Precondition, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			reg := newFake(t)
			reg.put("app", "1", buildImage(t, nil, 100))
			reg.requireLogin("user", "pass")
			dir := helperDir(t, c.mode)
			conf := withRegistries(t, insecure(reg.host))
			file := write(t, dir, "auth.json", strings.ReplaceAll(c.conf, "HOST", reg.host))
			s := newService(t, func(o *Options) {
				conf(o)
				o.AuthFile, o.HelperTimeout = file, time.Minute
				if c.mode == "hangs" {
					o.HelperTimeout = 3 * time.Second
				}
			})
			start := time.Now()
			_, err := s.Pull(t.Context(), PullRequest{Image: reg.host + "/app:1"})
			if errkind.Of(err) != c.want || (err == nil) != (c.want == errkind.Other) || err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v (kind %d)", err, errkind.Of(err))
			}
			if took := time.Since(start); took > 40*time.Second {
				t.Errorf("took %s", took)
			}
			for _, name := range []string{"first", "second"} {
				if got := asked(t, dir, name); (got == "get "+reg.host) != (c.asked == name) {
					t.Errorf("%s was asked %q", name, got)
				}
			}
		})
	}
}

// TestHungHelperKeepsNobody: pulls of other registries, and those that bring
// credentials, don't wait for it; neither does the service's end.
func TestHungHelperKeepsNobody(t *testing.T) {
	stuck, other := newFake(t), newFake(t)
	stuck.put("app", "1", buildImage(t, nil, 100))
	other.put("app", "1", buildImage(t, nil, 101))
	stuck.requireLogin("user", "pass")
	dir := helperDir(t, "hangs")
	conf := withRegistries(t, insecure(stuck.host, other.host))
	file := write(t, dir, "auth.json", `{"credHelpers":{"`+stuck.host+`":"first"}}`)
	s := openService(t, t.TempDir(), func(o *Options) {
		conf(o)
		o.AuthFile = file
		o.HelperTimeout = time.Hour
	})
	hung := make(chan error, 1)
	go func() {
		_, err := s.Pull(t.Context(), PullRequest{Image: stuck.host + "/app:1"})
		hung <- err
	}()
	for asked(t, dir, "first") == "" {
		time.Sleep(time.Millisecond)
	}
	s.pull(t, other.host+"/app:1")
	_, err := s.Pull(t.Context(), PullRequest{Image: stuck.host + "/app:1", Auth: &runtimeapi.AuthConfig{Username: "user", Password: "pass"}})
	must(t, err)
	s.close(t)
	if err := <-hung; err == nil {
		t.Error("the pull that hung has an image")
	}
}

// TestHelperForMirror: a mirror gets the credentials of its own helper, never
// those of the request or of the registry's helper.
func TestHelperForMirror(t *testing.T) {
	mirror, origin := newFake(t), newFake(t)
	mirror.put("app", "1", buildImage(t, nil, 100))
	mirror.requireLogin("user", "pass")
	dir := helperDir(t, "login")
	write(t, dir, "second/mode", "wrong")
	conf := withRegistries(t, mirrored(origin.host, mirror.host))
	file := write(t, dir, "auth.json", `{"credHelpers":{"`+mirror.host+`":"first","`+origin.host+`":"second"}}`)
	s := newService(t, func(o *Options) {
		conf(o)
		o.AuthFile = file
	})
	_, err := s.Pull(t.Context(), PullRequest{Image: origin.host + "/app:1", Auth: &runtimeapi.AuthConfig{Username: "not", Password: "yours"}})
	must(t, err)
	if got := asked(t, dir, "second"); got != "" || origin.count("/") != 0 {
		t.Errorf("the registry's helper was asked %q, the registry %d times", got, origin.count("/"))
	}
}

// TestHelperOfHub: Docker Hub goes by several names.
func TestHelperOfHub(t *testing.T) {
	s := newService(t, nil)
	for conf, want := range map[string]question{
		`{"credHelpers":{"docker.io":"a"}}`:                                       {"a", "docker.io"},
		`{"credHelpers":{"https://index.docker.io/v1/":"a"}}`:                     {"a", "https://index.docker.io/v1/"},
		`{"credHelpers":{"index.docker.io":"a"}}`:                                 {"a", "index.docker.io"},
		`{"credsStore":"a"}`:                                                      {"a", "https://index.docker.io/v1/"},
		`{"auths":{"docker.io":{"auth":"dXNlcjpwYXNz"}},"credHelpers":{"x":"a"}}`: {"", "https://index.docker.io/v1/"},
	} {
		got, err := s.now().files.fileHelper(write(t, t.TempDir(), "auth.json", conf), "docker.io")
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v", conf, got, err)
		}
	}
}
