package integration

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	crierrors "k8s.io/cri-api/pkg/errors"

	"github.com/gantry-cri/gantry/test/testenv"
)

func imageStatus(t *testing.T, env *testenv.Env, name string) *runtimeapi.Image {
	t.Helper()
	resp, err := env.Images.ImageStatus(env.Context(), &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: name}, Verbose: true})
	if err != nil {
		t.Fatalf("ImageStatus %s: %v", name, err)
	}
	return resp.Image
}

// TestImages: pull, status by each kind of reference, list, usage, removal.
func TestImages(t *testing.T) {
	each(t, func(t *testing.T, env *testenv.Env) {
		if imageStatus(t, env, testenv.Busybox) != nil {
			t.Error("an image that was never pulled has a status")
		}
		env.Pull("busybox") // a short name
		image := imageStatus(t, env, testenv.Busybox)
		if image == nil || image.Size == 0 || !slices.Contains(image.RepoTags, testenv.Busybox) || len(image.RepoDigests) == 0 {
			t.Fatalf("image status: %v", image)
		}
		for _, ref := range []string{"busybox", "busybox:latest", image.Id, strings.TrimPrefix(image.Id, "sha256:"), image.RepoDigests[0]} {
			if got := imageStatus(t, env, ref); got == nil || got.Id != image.Id {
				t.Errorf("status of %q: %v", ref, got)
			}
		}
		env.Pull(testenv.Nginx)
		list, err := env.Images.ListImages(env.Context(), &runtimeapi.ListImagesRequest{})
		wantCode(t, "ListImages", err, codes.OK)
		if !testenv.Peer() {
			wantEqual(t, "number of images", len(list.GetImages()), 2)
		}
		info, err := env.Images.ImageFsInfo(env.Context(), &runtimeapi.ImageFsInfoRequest{})
		wantCode(t, "ImageFsInfo", err, codes.OK)
		if len(info.GetImageFilesystems()) == 0 || info.ImageFilesystems[0].GetFsId().GetMountpoint() == "" {
			t.Errorf("image file systems: %v", info)
		}
		for range 2 {
			_, err = env.Images.RemoveImage(env.Context(), &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: testenv.Busybox}})
			wantCode(t, "RemoveImage", err, codes.OK)
		}
		if imageStatus(t, env, testenv.Busybox) != nil {
			t.Error("a removed image has a status")
		}
	})
}

// TestSimultaneousPulls of one image are one pull, and all succeed.
func TestSimultaneousPulls(t *testing.T) {
	each(t, func(t *testing.T, env *testenv.Env) {
		refs := make([]string, 8)
		var all sync.WaitGroup
		for i := range refs {
			all.Go(func() {
				resp, err := env.Images.PullImage(env.Context(), &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: testenv.Nginx}})
				wantCode(t, "PullImage", err, codes.OK)
				refs[i] = resp.GetImageRef()
			})
		}
		all.Wait()
		for _, ref := range refs {
			wantEqual(t, "image reference", ref, refs[0])
		}
	})
}

// TestImageOutlivesRestart: images are listed after a kill.
func TestImageOutlivesRestart(t *testing.T) {
	each(t, func(t *testing.T, env *testenv.Env) {
		env.Pull(testenv.Busybox)
		before := imageStatus(t, env, testenv.Busybox)
		env.Kill9()
		env.StartDaemon()
		if after := imageStatus(t, env, testenv.Busybox); after.GetId() != before.GetId() {
			t.Errorf("image before %v, after %v", before, after)
		}
	})
}

// TestImageErrors: the right code, and soon.
func TestImageErrors(t *testing.T) {
	each(t, func(t *testing.T, env *testenv.Env) {
		notForPeers(t)
		for _, tt := range []struct {
			name, image string
			want        []codes.Code
		}{
			{"missing image", "docker.io/library/no-such-image:latest", []codes.Code{codes.NotFound}},
			{"missing tag", "docker.io/library/busybox:no-such-tag", []codes.Code{codes.NotFound}},
			{"malformed name", "docker.io/Library/UPPER:x:y", []codes.Code{codes.InvalidArgument}},
			{"no name", "", []codes.Code{codes.InvalidArgument}},
			{"host that is down", "127.0.0.1:1/busybox:latest", []codes.Code{codes.Unknown}},
		} {
			prompt(t, tt.name, 30*time.Second, func() {
				_, err := env.Images.PullImage(env.Context(), &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: tt.image}})
				wantCode(t, tt.name, err, tt.want...)
			})
		}
	})
}

// TestRegistryDown: a registry where nobody listens.
func TestRegistryDown(t *testing.T) {
	eachWith(t, testenv.Options{Registry: &testenv.Registry{Address: "127.0.0.1:1"}}, func(t *testing.T, env *testenv.Env) {
		notForPeers(t)
		prompt(t, "pull from a registry that is down", 30*time.Second, func() {
			_, err := env.Images.PullImage(env.Context(), &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: testenv.Busybox}})
			wantPullError(t, "pull from a registry that is down", err, crierrors.ErrRegistryUnavailable)
		})
	})
}

// TestImageHandlers: every runtime handler has the same images, and one that is
// not configured has none.
func TestImageHandlers(t *testing.T) {
	each(t, func(t *testing.T, env *testenv.Env) {
		notForPeers(t)
		ctx := env.Context()
		known := &runtimeapi.ImageSpec{Image: testenv.Busybox, RuntimeHandler: env.RuntimeName, Annotations: map[string]string{"a": "b"}}
		_, err := env.Images.PullImage(ctx, &runtimeapi.PullImageRequest{Image: known})
		wantCode(t, "pull", err, codes.OK)
		status, err := env.Images.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: known})
		if err != nil || status.Image == nil {
			t.Errorf("status: %v, %v", status, err)
		}
		unknown := &runtimeapi.ImageSpec{Image: testenv.Busybox, RuntimeHandler: "no-such-handler"}
		_, err = env.Images.PullImage(ctx, &runtimeapi.PullImageRequest{Image: unknown})
		wantCode(t, "pull for an unknown handler", err, codes.InvalidArgument)
		_, err = env.Images.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: unknown})
		wantCode(t, "status for an unknown handler", err, codes.InvalidArgument)
		_, err = env.Images.ListImages(ctx, &runtimeapi.ListImagesRequest{Filter: &runtimeapi.ImageFilter{Image: unknown}})
		wantCode(t, "list for an unknown handler", err, codes.InvalidArgument)
		_, err = env.Images.RemoveImage(ctx, &runtimeapi.RemoveImageRequest{Image: unknown})
		wantCode(t, "remove for an unknown handler", err, codes.InvalidArgument)
	})
}
