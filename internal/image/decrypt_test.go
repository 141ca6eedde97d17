package image

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	imgspec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantry-cri/gantry/internal/errkind"
	"github.com/gantry-cri/gantry/internal/id"
	"github.com/gantry-cri/gantry/internal/storage"
)

// keyPair makes an RSA key: PEM of its private and public part.
func keyPair(t *testing.T) (private, public string) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	must(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// TestEncrypted: an image that skopeo encrypted, with the right key, with
// another, with none, and when its key has gone again.
func TestEncrypted(t *testing.T) {
	reg := newRegistry(t)
	src := buildImage(t, nil, 300_000, 100)
	reg.put("plain", "1", src)
	dir := t.TempDir()
	private, public := keyPair(t)
	other, _ := keyPair(t)
	write(t, dir, "public.pem", public)
	out, err := exec.Command("skopeo", "copy", "-q", "--src-tls-verify=false", "--dest-tls-verify=false",
		"--encryption-key", "jwe:"+filepath.Join(dir, "public.pem"), "docker://"+reg.host+"/plain:1", "docker://"+reg.host+"/secret:1").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	name, keys := reg.host+"/secret:1", filepath.Join(dir, "keys")
	conf := withRegistries(t, insecure(reg.host))
	s := newService(t, func(o *Options) {
		conf(o)
		o.DecryptionKeysDir = keys
	})
	refused := func(what string) {
		t.Helper()
		_, err := s.Pull(t.Context(), PullRequest{Image: name})
		if errkind.Of(err) != errkind.Denied || !strings.Contains(err.Error(), "encrypted") || !strings.Contains(err.Error(), keys) {
			t.Errorf("%s: %v (kind %d)", what, err, errkind.Of(err))
		}
	}
	refused("without a directory")
	write(t, keys, "README", "no key")
	write(t, keys, "other.pem", other)
	must(t, os.Mkdir(filepath.Join(keys, "directory"), 0o700))
	refused("with another key")
	s.wantNothing(t)
	must(t, os.WriteFile(filepath.Join(dir, "private.pem"), []byte(private), 0o600))
	must(t, os.Symlink("../private.pem", filepath.Join(keys, "right.pem")))
	img := s.pull(t, name)
	r, err := s.store.CreateRootFS(id.NewContainer(), img.ID, storage.RootFSOptions{})
	must(t, err)
	if body, err := s.store.ReadFile(r, "/layer0", 1<<20); err != nil || len(body) != 300_000 {
		t.Errorf("content: %d bytes, %v", len(body), err)
	}
	must(t, os.Remove(filepath.Join(keys, "right.pem")))
	refused("a stored image without its key")
	s.pull(t, reg.host+"/plain:1") // the same layers, but nobody keeps these secret
}

// wantNothing fails unless nothing is stored, and nothing left of a pull.
func (s *testService) wantNothing(t *testing.T) {
	t.Helper()
	layers, err := s.store.Library().Layers()
	must(t, err)
	staged, err := os.ReadDir(filepath.Join(s.dir, "root/staging"))
	must(t, err)
	if len(s.List()) != 0 || len(layers) != 0 || len(staged) != 0 {
		t.Errorf("stored: images %v, layers %v, staged %v", s.List(), layers, staged)
	}
}

// TestEncryptedAndTampered: a blob with the right digest whose content was
// changed after it was encrypted.
func TestEncryptedAndTampered(t *testing.T) {
	plain, reg := newRegistry(t), newFake(t)
	dir := t.TempDir()
	private, public := keyPair(t)
	write(t, dir, "public.pem", public)
	write(t, dir, "keys/private.pem", private)
	plain.put("plain", "1", buildImage(t, nil, 100_000))
	out, err := exec.Command("skopeo", "copy", "-q", "--src-tls-verify=false", "--encryption-key", "jwe:"+filepath.Join(dir, "public.pem"),
		"docker://"+plain.host+"/plain:1", "dir:"+filepath.Join(dir, "image")).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	img := imageOfDir(t, filepath.Join(dir, "image"))
	reg.put("secret", "1", img)
	conf := withRegistries(t, insecure(reg.host))
	for _, changed := range []bool{false, true} {
		s := newService(t, func(o *Options) {
			conf(o)
			o.DecryptionKeysDir = filepath.Join(dir, "keys")
		})
		if changed {
			reg.put("secret", "1", img.tampered(t))
		}
		_, err := s.Pull(t.Context(), PullRequest{Image: reg.host + "/secret:1"})
		if !changed {
			must(t, err)
			continue
		}
		if errkind.Of(err) != errkind.Invalid {
			t.Errorf("%v (kind %d)", err, errkind.Of(err))
		}
		s.wantNothing(t)
	}
}

// imageOfDir reads what skopeo wrote to a directory.
func imageOfDir(t *testing.T, dir string) testImage {
	t.Helper()
	img := testImage{mediaType: imgspec.MediaTypeImageManifest, blobs: map[digest.Digest][]byte{}}
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range entries {
		body, err := os.ReadFile(filepath.Join(dir, e.Name()))
		must(t, err)
		if e.Name() == "manifest.json" {
			img.manifest = body
		} else {
			img.blobs[digest.FromBytes(body)] = body
		}
	}
	return img
}

// tampered is the image with a byte of its last layer changed, and a manifest
// that says so.
func (i testImage) tampered(t *testing.T) testImage {
	t.Helper()
	var m imgspec.Manifest
	must(t, json.Unmarshal(i.manifest, &m))
	layer := &m.Layers[len(m.Layers)-1]
	body := append([]byte(nil), i.blobs[layer.Digest]...)
	body[len(body)/2] ^= 1
	layer.Digest = digest.FromBytes(body)
	out := testImage{mediaType: i.mediaType, blobs: map[digest.Digest][]byte{layer.Digest: body, m.Config.Digest: i.blobs[m.Config.Digest]}}
	var err error
	out.manifest, err = json.Marshal(m)
	must(t, err)
	return out
}
