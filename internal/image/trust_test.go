package image

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	imgspec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.podman.io/image/v5/copy"
	"go.podman.io/image/v5/docker"
	"go.podman.io/image/v5/signature"
	"go.podman.io/image/v5/signature/sigstore"
	"go.podman.io/image/v5/types"

	"github.com/gantry-cri/gantry/internal/errkind"
	"github.com/gantry-cri/gantry/internal/storage"
)

// signed is a registry with one image in four repositories, and what policies
// need to judge them.
type signed struct {
	reg         *realRegistry
	dir         string
	registriesD string
}

// newSigned signs with the tools that people use: gpg and skopeo.
func newSigned(t *testing.T) signed {
	t.Helper()
	s := signed{newRegistry(t), t.TempDir(), ""}
	// A short path: gpg's agent has its socket there.
	home, err := os.MkdirTemp("", "gpg")
	must(t, err)
	t.Cleanup(func() {
		_ = exec.Command("gpgconf", "--homedir", home, "--kill", "all").Run()
		_ = os.RemoveAll(home)
	})
	s.registriesD = filepath.Join(s.dir, "registries.d")
	write(t, s.dir, "registries.d/local.yaml", fmt.Sprintf(`docker:
  %q: {lookaside: "file://%s/lookaside", use-sigstore-attachments: true}
`, s.reg.host, s.dir))
	must(t, os.Mkdir(filepath.Join(s.dir, "lookaside"), 0o755))
	for _, name := range []string{"sigstore", "other"} {
		keys, err := sigstore.GenerateKeyPair([]byte("secret"))
		must(t, err)
		write(t, s.dir, name+".key", string(keys.PrivateKey))
		write(t, s.dir, name+".pub", string(keys.PublicKey))
	}
	for repo, size := range map[string]int{"plain": 100, "gpg": 101, "sigstore": 102, "moved": 103} {
		s.reg.put(repo, "1", buildImage(t, func(c *imgspec.Image) { c.Author = repo }, size))
	}
	script := `set -e; export GNUPGHOME=$1; cd $2
for who in signer other; do gpg -q --batch --pinentry-mode loopback --passphrase '' --quick-gen-key $who@example.com rsa2048 sign never; gpg -q --export --armor $who@example.com > $who.asc; done
copy() { skopeo copy -q --registries.d registries.d --src-tls-verify=false --dest-tls-verify=false "$@"; }
copy --sign-by signer@example.com docker://$3/gpg:1 docker://$3/gpg:1
copy --sign-by signer@example.com docker://$3/moved:1 docker://$3/moved:1`
	if out, err := exec.Command("sh", "-c", script, "sh", home, s.dir, s.reg.host).CombinedOutput(); err != nil {
		t.Fatalf("sign: %v: %s", err, out)
	}
	s.signSigstore(t, "sigstore")
	return s
}

// signSigstore signs with the library: Debian's skopeo can't.
func (s signed) signSigstore(t *testing.T, repo string) {
	t.Helper()
	ref, err := docker.ParseReference("//" + s.reg.host + "/" + repo + ":1")
	must(t, err)
	accept, err := signature.NewPolicyContext(acceptAnything())
	must(t, err)
	sys := &types.SystemContext{DockerInsecureSkipTLSVerify: types.OptionalBoolTrue, RegistriesDirPath: s.registriesD, SystemRegistriesConfPath: "/dev/null", SystemRegistriesConfDirPath: t.TempDir()}
	_, err = copy.Image(t.Context(), accept, ref, ref, &copy.Options{
		SourceCtx: sys, DestinationCtx: sys,
		SignBySigstorePrivateKeyFile: filepath.Join(s.dir, "sigstore.key"), SignSigstorePrivateKeyPassphrase: []byte("secret"),
	})
	must(t, err)
	must(t, accept.Destroy())
}

func (s signed) by(kind, key string) string {
	extra := ""
	if kind == "signedBy" {
		extra = `, "keyType": "GPGKeys"`
	}
	return fmt.Sprintf(`{"default":[{"type":"reject"}],"transports":{"docker":{"":[{"type":%q%s,"keyPath":%q}]}}}`, kind, extra, filepath.Join(s.dir, key))
}

// service has a policy for each namespace of the test, and accepts anything for others.
func (s signed) service(t *testing.T) *testService {
	for namespace, policy := range map[string]string{
		"rejecting": `{"default":[{"type":"reject"}]}`,
		"accepting": `{"default":[{"type":"insecureAcceptAnything"}],"transports":{"docker":{"example.com":[{"type":"reject"}]}}}`,
		"gpg":       s.by("signedBy", "signer.asc"), "gpg-other": s.by("signedBy", "other.asc"),
		"sigstore": s.by("sigstoreSigned", "sigstore.pub"), "sigstore-other": s.by("sigstoreSigned", "other.pub"),
		"no-key": s.by("signedBy", "no-such-file"), "broken": "{",
		"only-gpg": `{"default":[{"type":"reject"}],"transports":{"docker":{"` + s.reg.host + `/gpg":[{"type":"insecureAcceptAnything"}]}}}`,
	} {
		write(t, s.dir, "policies.d/"+namespace+".json", policy)
	}
	conf := withRegistries(t, insecure(s.reg.host))
	return newService(t, func(o *Options) {
		conf(o)
		o.RegistriesDir, o.PolicyDir = s.registriesD, filepath.Join(s.dir, "policies.d")
	})
}

// TestSignatures: each policy for each image, when it is pulled and, without
// the registry and the signatures' server, when it is stored.
func TestSignatures(t *testing.T) {
	s := newSigned(t)
	refusals := map[string][]string{ // namespace -> images that it does not allow
		"": nil, "unknown": nil, "accepting": nil,
		"rejecting": {"plain", "gpg", "sigstore"},
		"gpg":       {"plain", "sigstore"}, "gpg-other": {"plain", "gpg", "sigstore"},
		"sigstore": {"plain", "gpg"}, "sigstore-other": {"plain", "gpg", "sigstore"},
		"no-key": {"plain", "gpg", "sigstore"}, "only-gpg": {"plain", "sigstore"},
	}
	images := []string{"plain", "gpg", "sigstore"}
	check := func(t *testing.T, what string, err error, allowed bool) {
		t.Helper()
		switch {
		case allowed && err != nil:
			t.Errorf("%s: %v", what, err)
		case !allowed && (!errors.Is(err, ErrPolicy) || errkind.Of(err) != errkind.Denied):
			t.Errorf("%s: %v (kind %d), want a refusal", what, err, errkind.Of(err))
		}
	}
	allowed := func(namespace, image string) bool {
		return !strings.Contains(strings.Join(refusals[namespace], " "), image)
	}
	for namespace := range refusals {
		empty := s.service(t)
		for _, image := range images {
			_, err := empty.Pull(t.Context(), PullRequest{Image: s.reg.host + "/" + image + ":1", Namespace: namespace})
			check(t, "pull "+image+" for "+namespace, err, allowed(namespace, image))
			if _, err := empty.Resolve(s.reg.host + "/" + image + ":1"); (err == nil) != allowed(namespace, image) {
				t.Errorf("%s for %s: stored: %v", image, namespace, err)
			}
		}
	}
	stored := s.service(t)
	pulled := map[string]storage.Image{}
	for _, image := range images {
		pulled[image] = stored.pull(t, s.reg.host+"/"+image+":1")
	}
	s.reg.stop()
	must(t, os.Rename(filepath.Join(s.dir, "lookaside"), filepath.Join(s.dir, "gone")))
	for namespace := range refusals {
		for _, image := range images {
			img := pulled[image]
			for _, called := range []string{"", s.reg.host + "/" + image + ":1", img.ID, "sha256:" + img.ID, img.Names[0], "other.example/app:1"} {
				check(t, fmt.Sprintf("stored %s as %q for %s", image, called, namespace),
					stored.Allow(t.Context(), img, Use{namespace, called}), allowed(namespace, image))
			}
		}
	}
	for namespace, want := range map[string]errkind.Kind{"broken": errkind.Precondition, "../gpg": errkind.Invalid, "a/b": errkind.Invalid, ".": errkind.Invalid} {
		if err := stored.Allow(t.Context(), pulled["gpg"], Use{Namespace: namespace}); errkind.Of(err) != want {
			t.Errorf("namespace %q: %v", namespace, err)
		}
		if _, err := stored.Pull(t.Context(), PullRequest{Image: s.reg.host + "/gpg:1", Namespace: namespace}); errkind.Of(err) != want {
			t.Errorf("pull for namespace %q: %v", namespace, err)
		}
	}
}

// TestSignaturesArriveLater: an image that was stored unsigned is trusted once a
// pull has seen its signature, keeps it through pulls that see none and through
// a restart, and is judged by what its pod calls it.
func TestSignaturesArriveLater(t *testing.T) {
	s := newSigned(t)
	svc := s.service(t)
	name := s.reg.host + "/moved:1"
	hide := func() { must(t, os.Rename(filepath.Join(s.dir, "lookaside"), filepath.Join(s.dir, "hidden"))) }
	show := func() { must(t, os.Rename(filepath.Join(s.dir, "hidden"), filepath.Join(s.dir, "lookaside"))) }
	hide()
	img := svc.pull(t, name)
	if err := svc.Allow(t.Context(), img, Use{"gpg", name}); !errors.Is(err, ErrPolicy) {
		t.Fatalf("without its signature: %v", err)
	}
	show()
	svc.pull(t, name)
	must(t, svc.Allow(t.Context(), img, Use{"gpg", name}))
	hide()
	svc.pull(t, name)
	must(t, svc.Allow(t.Context(), img, Use{"gpg", name}))
	must(t, svc.Service.Close())
	must(t, svc.store.Close())
	again := openService(t, svc.dir, func(o *Options) { *o = withStore(svc.now().o, o.Store) })
	svc.testingAgain(again)
	img, err := again.Resolve(name)
	must(t, err)
	must(t, again.Allow(t.Context(), img, Use{"gpg", name}))
	// The same image by another name, for which nobody signed.
	s.reg.put("copy", "1", buildImage(t, func(c *imgspec.Image) { c.Author = "moved" }, 103))
	img = again.pull(t, s.reg.host+"/copy:1")
	if err := again.Allow(t.Context(), img, Use{"gpg", s.reg.host + "/copy:1"}); !errors.Is(err, ErrPolicy) {
		t.Errorf("by a name that is not signed: %v", err)
	}
	must(t, again.Allow(t.Context(), img, Use{"gpg", name}))
	must(t, again.Allow(t.Context(), img, Use{"gpg", "sha256:" + img.ID}))
}

func withStore(o Options, store *storage.Store) Options {
	o.Store = store
	return o
}

// testingAgain makes the test's end close another service in the place of this.
func (s *testService) testingAgain(other *testService) { *s = *other }
