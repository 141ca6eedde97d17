package integration

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	crierrors "k8s.io/cri-api/pkg/errors"

	"github.com/gantry-cri/gantry/test/testenv"
)

// wantPullError fails the test unless err is what the kubelet takes for reason:
// its client reads the beginning of messages that have the code Unknown.
func wantPullError(t *testing.T, what string, err, reason error) {
	t.Helper()
	wantCode(t, what, err, codes.Unknown)
	if !strings.HasPrefix(status.Convert(err).Message(), reason.Error()+": ") {
		t.Errorf("%s: %v, want %s", what, err, reason)
	}
}

func pullFor(env *testenv.Env, image string, pod *runtimeapi.PodSandboxConfig, auth *runtimeapi.AuthConfig) error {
	_, err := env.Images.PullImage(env.Context(), &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: image}, SandboxConfig: pod, Auth: auth})
	return err
}

// TestNamespacePolicies: a namespace with a policy of its own gets no image that
// this does not allow, neither from a registry nor from the store, neither to
// run nor to mount.
func TestNamespacePolicies(t *testing.T) {
	dir := t.TempDir()
	policy := `{"default":[{"type":"reject"}],"transports":{"docker":{"docker.io/library/nginx":[{"type":"insecureAcceptAnything"}]}}}`
	if err := os.WriteFile(filepath.Join(dir, "strict.json"), []byte(policy), 0o644); err != nil {
		t.Fatal(err)
	}
	eachWith(t, testenv.Options{Config: fmt.Sprintf("policy_dir = %q\n", dir)}, func(t *testing.T, env *testenv.Env) {
		notForPeers(t)
		strict, lax := env.PodConfig("strict"), env.PodConfig("lax")
		strict.Metadata.Namespace = "strict"
		wantPullError(t, "pull for strict", pullFor(env, testenv.Busybox, strict, nil), crierrors.ErrSignatureValidationFailed)
		if imageStatus(t, env, testenv.Busybox) != nil {
			t.Error("a refused image is stored")
		}
		wantCode(t, "pull for lax", pullFor(env, testenv.Busybox, lax, nil), codes.OK)
		wantCode(t, "pull of what strict allows", pullFor(env, testenv.Nginx, strict, nil), codes.OK)
		wantPullError(t, "pull for strict of what is stored", pullFor(env, testenv.Busybox, strict, nil), crierrors.ErrSignatureValidationFailed)
		busybox, nginx := imageStatus(t, env, testenv.Busybox), imageStatus(t, env, testenv.Nginx)

		pod, other := env.RunPod(strict), env.RunPod(lax)
		for _, name := range []string{testenv.Busybox, "busybox", busybox.Id, busybox.RepoDigests[0]} {
			config := env.ContainerConfig("run "+name, "sleep 1000")
			config.Image = &runtimeapi.ImageSpec{Image: name, UserSpecifiedImage: testenv.Busybox}
			wantRefused(t, env, pod, config, strict, codes.PermissionDenied, crierrors.ErrSignatureValidationFailed.Error())
			config.Image.UserSpecifiedImage = ""
			wantRefused(t, env, pod, config, strict, codes.PermissionDenied, crierrors.ErrSignatureValidationFailed.Error())
			mounts := env.ContainerConfig("mount "+name, "sleep 1000")
			mounts.Image = &runtimeapi.ImageSpec{Image: nginx.Id, UserSpecifiedImage: testenv.Nginx}
			mounts.Mounts = []*runtimeapi.Mount{imageMount(name, "/v", "")}
			wantRefused(t, env, pod, mounts, strict, codes.PermissionDenied, crierrors.ErrSignatureValidationFailed.Error())
		}
		allowed := env.ContainerConfig("main", "sleep 1000")
		allowed.Image = &runtimeapi.ImageSpec{Image: nginx.Id, UserSpecifiedImage: testenv.Nginx}
		env.Run(pod, allowed, strict)
		free := env.ContainerConfig("main", "sleep 1000")
		free.Mounts = []*runtimeapi.Mount{imageMount(testenv.Busybox, "/v", "")}
		env.Run(other, free, lax)
	})
}

// loginRegistry is the tests' registry behind a login, which env may ask over
// plain HTTP. It returns the name of busybox there.
func loginRegistry(t *testing.T, env *testenv.Env) (image string, stop func()) {
	t.Helper()
	behind, err := url.Parse("http://" + env.Registry())
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(behind)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "user" || password != "right" {
			w.Header().Set("WWW-Authenticate", `Basic realm="tests"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	host := server.Listener.Addr().String()
	conf := testenv.RegistriesConf(env.Registry()) + fmt.Sprintf("\n[[registry]]\nlocation = %q\ninsecure = true\n", host)
	if err := os.WriteFile(filepath.Join(env.Dir, "registries.conf"), []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	return host + "/library/busybox:latest", server.Close
}

// TestStoredImageNeedsCredentials: that an image is stored is no reason to hand
// it to a pull whose registry would not, or can't be asked.
func TestStoredImageNeedsCredentials(t *testing.T) {
	auth := filepath.Join(t.TempDir(), "auth.json")
	eachWith(t, testenv.Options{Config: fmt.Sprintf("auth_file = %q\n", auth)}, func(t *testing.T, env *testenv.Env) {
		notForPeers(t)
		image, stop := loginRegistry(t, env)
		right := &runtimeapi.AuthConfig{Username: "user", Password: "right"}
		refused := func(what, image string) {
			t.Helper()
			for _, auth := range []*runtimeapi.AuthConfig{nil, {Username: "user", Password: "wrong"}, {Username: "user", Password: "right", ServerAddress: "quay.io"}} {
				prompt(t, what, 10*time.Second, func() {
					wantCode(t, what, pullFor(env, image, nil, auth), codes.PermissionDenied)
				})
			}
		}
		refused("a pull", image)
		wantCode(t, "with credentials", pullFor(env, image, nil, right), codes.OK)
		stored := imageStatus(t, env, image)
		refused("a pull of a stored image", image)
		refused("a pull of a stored image by digest", stored.RepoDigests[0])
		wantCode(t, "with credentials again", pullFor(env, image, nil, right), codes.OK)
		stop()
		for _, name := range []string{image, stored.RepoDigests[0]} {
			prompt(t, "a pull while the registry is down", 20*time.Second, func() {
				wantPullError(t, "a pull while the registry is down", pullFor(env, name, nil, right), crierrors.ErrRegistryUnavailable)
			})
		}
		wantEqual(t, "image", imageStatus(t, env, image).GetId(), stored.Id)
	})
}

// TestEncryptedImage: it runs where its key is, and elsewhere nothing of it stays.
func TestEncryptedImage(t *testing.T) {
	dir := t.TempDir()
	keys := filepath.Join(dir, "keys")
	script := `set -e; cd "$1"; openssl genrsa -out private.pem 2048 2>/dev/null; openssl rsa -in private.pem -pubout -out public.pem 2>/dev/null
skopeo copy -q --src-tls-verify=false --dest-tls-verify=false --encryption-key jwe:public.pem docker://$2/library/busybox:latest docker://$2/library/secret:1`
	if out, err := exec.Command("sh", "-c", script, "sh", dir, shared.Registry(t).Address).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	private, err := os.ReadFile(filepath.Join(dir, "private.pem"))
	if err != nil {
		t.Fatal(err)
	}
	eachWith(t, testenv.Options{}, func(t *testing.T, env *testenv.Env) {
		notForPeers(t)
		const name = "docker.io/library/secret:1"
		err := pullFor(env, name, nil, nil)
		wantCode(t, "without a key", err, codes.PermissionDenied)
		wantContains(t, "without a key", err.Error(), "encrypted")
		if imageStatus(t, env, name) != nil || layerCount(t, env) != 0 {
			t.Error("something of it is stored")
		}
		env.StopDaemon()
		own := filepath.Join(keys, env.Name)
		if err := os.MkdirAll(own, 0o700); err != nil {
			t.Fatal(err)
		}
		config := filepath.Join(env.Dir, "conf.d", "keys.toml")
		for file, text := range map[string]string{filepath.Join(own, "key.pem"): string(private), config: fmt.Sprintf("decryption_keys_path = %q\n", own)} {
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		env.StartDaemon()
		podConfig := env.PodConfig("pod")
		container := env.ContainerConfig("main", "sleep 1000")
		container.Image = &runtimeapi.ImageSpec{Image: env.Pull(name), UserSpecifiedImage: name}
		env.Exec(env.Run(env.RunPod(podConfig), container, podConfig), "test -x /bin/busybox")
	})
}
