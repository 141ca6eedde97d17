package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	imgspec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/test/testenv"
)

// TestReferences: whatever an image is called, each RPC means the same image by
// it, and calls it by the same id.
func TestReferences(t *testing.T) {
	withPod(t, func(t *testing.T, env *testenv.Env, pod string, podConfig *runtimeapi.PodSandboxConfig) {
		notForPeers(t)
		env.Pull(testenv.Nginx)
		image := imageStatus(t, env, testenv.Busybox)
		id, digested := strings.TrimPrefix(image.Id, "sha256:"), image.RepoDigests[0]
		_, d, _ := strings.Cut(digested, "@")
		names := []string{"busybox", "busybox:latest", "library/busybox", "docker.io/busybox", "docker.io/library/busybox",
			testenv.Busybox, digested, "busybox@" + d, testenv.Busybox + "@" + d, "index.docker.io/library/busybox:latest"}
		ids := []string{image.Id, id, id[:12], "sha256:" + id[:12]}
		for i, ref := range append(names, ids...) {
			if got := imageStatus(t, env, ref); got.GetId() != image.Id {
				t.Errorf("ImageStatus %s: %v", ref, got)
			}
			list, err := env.Images.ListImages(env.Context(), &runtimeapi.ListImagesRequest{Filter: &runtimeapi.ImageFilter{Image: &runtimeapi.ImageSpec{Image: ref}}})
			if err != nil || len(list.Images) != 1 || list.Images[0].Id != image.Id {
				t.Errorf("ListImages %s: %v, %v", ref, list, err)
			}
			config := env.ContainerConfig("c"+strconv.Itoa(i), "sleep 1000")
			config.Image = &runtimeapi.ImageSpec{Image: ref, UserSpecifiedImage: "busybox", Annotations: map[string]string{"a": "b"}, RuntimeHandler: env.RuntimeName}
			config.Mounts = []*runtimeapi.Mount{imageMount(ref, "/v", "")}
			container := env.Create(pod, config, podConfig)
			st := env.Status(container)
			wantEqual(t, "image id of a container of "+ref, st.ImageId, image.Id)
			wantEqual(t, "image ref of a container of "+ref, st.ImageRef, digested)
			wantEqual(t, "image ref of a volume of "+ref, st.Mounts[0].GetImage().GetImageRef(), digested)
			wantEqual(t, "image of the container", st.Image.GetImage(), "busybox")
			wantEqual(t, "user-specified image", st.Image.GetUserSpecifiedImage(), "busybox")
			wantEqual(t, "annotation", st.Image.GetAnnotations()["a"], "b")
			wantEqual(t, "runtime handler", st.Image.GetRuntimeHandler(), env.RuntimeName)
			env.Remove(container)
		}
		for _, ref := range names {
			wantEqual(t, "PullImage "+ref, env.Pull(ref), image.Id)
		}
		for _, ref := range append(names, ids...) {
			if _, err := env.Images.RemoveImage(env.Context(), &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: ref}}); err != nil {
				t.Errorf("RemoveImage %s: %v", ref, err)
			}
			for _, other := range append(names, ids...) {
				if got := imageStatus(t, env, other); got != nil {
					t.Fatalf("removed as %s, but %s is there: %v", ref, other, got)
				}
			}
			env.Pull(testenv.Busybox)
		}
	})
}

// TestPinnedImages: those that the configuration names, or has a pattern for,
// say so, and are not pruned.
func TestPinnedImages(t *testing.T) {
	eachWith(t, testenv.Options{Config: `pinned_images = ["docker.io/*/ngin*", "no/such"]` + "\n"}, func(t *testing.T, env *testenv.Env) {
		notForPeers(t)
		env.Pull(testenv.Nginx)
		env.Pull(testenv.Busybox)
		wantEqual(t, "nginx is pinned", imageStatus(t, env, testenv.Nginx).GetPinned(), true)
		wantEqual(t, "busybox is pinned", imageStatus(t, env, testenv.Busybox).GetPinned(), false)
		mustGantryd(t, env, "images", "prune")
		if imageStatus(t, env, testenv.Nginx) == nil || imageStatus(t, env, testenv.Busybox) != nil {
			t.Error("pruned is not what is not pinned")
		}
	})
}

// TestRemoveBesideUse: images are pulled, removed and made containers of, all at
// the same time. Each call succeeds or finds no image; what runs has its files;
// and in the end a pull brings a whole image.
func TestRemoveBesideUse(t *testing.T) {
	withPod(t, func(t *testing.T, env *testenv.Env, pod string, podConfig *runtimeapi.PodSandboxConfig) {
		notForPeers(t)
		stays := env.Run(pod, env.ContainerConfig("stays", "sleep 1000"), podConfig)
		const workers, rounds = 2, 8
		var makers, others sync.WaitGroup
		var made, lacking atomic.Int64
		done := make(chan struct{})
		missing := func(what string, err error) bool {
			if err != nil && status.Code(err) != codes.NotFound {
				t.Errorf("%s: %v", what, err)
			}
			return err != nil
		}
		untilDone := func(call func()) {
			others.Go(func() {
				for {
					select {
					case <-done:
						return
					case <-time.After(rand.N(200 * time.Millisecond)): // not in step
						call()
					}
				}
			})
		}
		for _, name := range []string{testenv.Busybox, testenv.Nginx} {
			untilDone(func() { missing("pull", pullFor(env, name, nil, nil)) })
			untilDone(func() {
				_, err := env.Images.RemoveImage(env.Context(), &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: name}})
				missing("remove", err)
			})
		}
		for worker := range workers {
			makers.Go(func() {
				for i := 0; i < rounds && !t.Failed(); {
					missing("pull", pullFor(env, testenv.Busybox, nil, nil))
					missing("pull", pullFor(env, testenv.Nginx, nil, nil))
					config := env.ContainerConfig(fmt.Sprintf("c%d-%d", worker, i), "test -x /bin/busybox && test -f /v/usr/sbin/nginx")
					config.Mounts = []*runtimeapi.Mount{imageMount(testenv.Nginx, "/v", "")}
					resp, err := env.Runtime.CreateContainer(env.Context(), &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: config, SandboxConfig: podConfig})
					if missing("create", err) {
						lacking.Add(1)
						continue
					}
					env.Start(resp.ContainerId)
					if st := env.WaitExit(resp.ContainerId); st.ExitCode != 0 {
						t.Errorf("a container lacks files of its images: exit code %d", st.ExitCode)
					}
					env.Remove(resp.ContainerId)
					made.Add(1)
					i++
				}
			})
		}
		makers.Wait()
		close(done)
		others.Wait()
		t.Logf("%d containers had their images, %d creations found one removed", made.Load(), lacking.Load())
		env.Exec(stays, "/bin/busybox true && test -x /bin/busybox")
		env.Pull(testenv.Busybox)
		env.Pull(testenv.Nginx)
		mustGantryd(t, env, "images", "verify")
	})
}

// TestImageFsInfoExact: what images occupy is what du finds in their layers,
// apart from what containers have written, and without a look at the disk.
func TestImageFsInfoExact(t *testing.T) {
	withPod(t, func(t *testing.T, env *testenv.Env, pod string, podConfig *runtimeapi.PodSandboxConfig) {
		notForPeers(t)
		env.Pull(testenv.Nginx)
		id := env.Run(pod, env.ContainerConfig("main", "sleep 1000"), podConfig)
		check := func(what string, usage func(*runtimeapi.ImageFsInfoResponse) *runtimeapi.FilesystemUsage, dirs string) {
			t.Helper()
			env.Eventually(what, func() error {
				info, err := env.Images.ImageFsInfo(env.Context(), &runtimeapi.ImageFsInfoRequest{})
				if err != nil {
					return err
				}
				bytes, inodes := du(t, filepath.Join(env.Root, dirs))
				got := usage(info)
				if got.UsedBytes.GetValue() != bytes || got.InodesUsed.GetValue() != inodes {
					return fmt.Errorf("%d bytes and %d inodes, du finds %d and %d", got.UsedBytes.GetValue(), got.InodesUsed.GetValue(), bytes, inodes)
				}
				return nil
			})
		}
		images := func(i *runtimeapi.ImageFsInfoResponse) *runtimeapi.FilesystemUsage { return i.ImageFilesystems[0] }
		containers := func(i *runtimeapi.ImageFsInfoResponse) *runtimeapi.FilesystemUsage { return i.ContainerFilesystems[0] }
		check("images", images, "storage/overlay/*/diff")
		env.Exec(id, "dd if=/dev/zero of=/big bs=1M count=5 2>/dev/null && mkdir /d && ln /big /d/again")
		check("images beside a container that writes", images, "storage/overlay/*/diff")
		check("containers", containers, "containers/*/upper")
		_, err := env.Images.RemoveImage(env.Context(), &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: testenv.Nginx}})
		wantCode(t, "RemoveImage", err, codes.OK)
		check("images after a removal", images, "storage/overlay/*/diff")
	})
}

// du is what du counts in directories: bytes in blocks, and inodes.
func du(t *testing.T, pattern string) (bytes, inodes uint64) {
	t.Helper()
	dirs, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	count := func(args ...string) (sum uint64) {
		for _, dir := range dirs { // each by itself: as one, du counts a link between two once
			out, err := exec.Command("du", append(args, "-s", dir)...).Output()
			if err != nil {
				return 0 // it went meanwhile
			}
			n, err := strconv.ParseUint(strings.Fields(string(out))[0], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			sum += n
		}
		return sum
	}
	return count("-B512") * 512, count("--inodes")
}

// TestArtifactVolume: an OCI artifact's files can be mounted; it can't be run.
func TestArtifactVolume(t *testing.T) {
	withPod(t, func(t *testing.T, env *testenv.Env, pod string, podConfig *runtimeapi.PodSandboxConfig) {
		notForPeers(t)
		pushArtifact(t, env.Registry(), "library/model", map[string]string{"weights.bin": "weights", "conf/model.json": "{}\n"})
		name := "docker.io/library/model:1"
		ref := env.Pull(name)
		if image := imageStatus(t, env, name); image.GetId() != ref || image.GetSize() == 0 {
			t.Errorf("status: %v", image)
		}
		config := env.ContainerConfig("main", "sleep 1000")
		config.Mounts = []*runtimeapi.Mount{imageMount(ref, "/model", ""), imageMount(name, "/one.json", "conf/model.json")}
		id := env.Run(pod, config, podConfig)
		wantEqual(t, "files", env.Exec(id, "cat /model/weights.bin /model/conf/model.json /one.json; cd /model && find . -type f | sort"),
			"weights{}\n{}\n./conf/model.json\n./weights.bin\n")
		wantEqual(t, "a write", env.Exec(id, "(echo > /model/x) 2>/dev/null && echo done || echo refused"), "refused\n")
		run := env.ContainerConfig("run", "")
		run.Image = &runtimeapi.ImageSpec{Image: ref}
		wantRefused(t, env, pod, run, podConfig, codes.InvalidArgument, "application/vnd.example.model")
	})
}

// pushArtifact pushes files as ORAS does.
func pushArtifact(t *testing.T, registry, repo string, files map[string]string) {
	t.Helper()
	base := "http://" + registry + "/v2/" + repo
	blob := func(mediaType, body string) imgspec.Descriptor {
		d := digest.FromString(body)
		start := request(t, http.MethodPost, base+"/blobs/uploads/", "", "", http.StatusAccepted)
		location, err := start.Location()
		if err != nil {
			t.Fatal(err)
		}
		query := location.Query()
		query.Set("digest", d.String())
		location.RawQuery = query.Encode()
		request(t, http.MethodPut, location.String(), "application/octet-stream", body, http.StatusCreated)
		return imgspec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(body))}
	}
	m := imgspec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: imgspec.MediaTypeImageManifest, ArtifactType: "application/vnd.example.model"}
	m.Config = blob(imgspec.MediaTypeEmptyJSON, "{}")
	for name, body := range files {
		layer := blob("application/octet-stream", body)
		layer.Annotations = map[string]string{imgspec.AnnotationTitle: name}
		m.Layers = append(m.Layers, layer)
	}
	body, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	request(t, http.MethodPut, base+"/manifests/1", m.MediaType, string(body), http.StatusCreated)
}

func request(t *testing.T, method, url, contentType, body string, want int) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader([]byte(body)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != want {
		t.Fatalf("%s %s: %s", method, url, resp.Status)
	}
	return resp
}
