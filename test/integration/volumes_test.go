package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/test/testenv"
)

func imageMount(image, path, sub string) *runtimeapi.Mount {
	return &runtimeapi.Mount{ContainerPath: path, Image: &runtimeapi.ImageSpec{Image: image}, ImageSubPath: sub}
}

// withVolumeImage gives a test a pod, and the id of an image to mount.
func withVolumeImage(t *testing.T, test func(t *testing.T, env *testenv.Env, pod string, config *runtimeapi.PodSandboxConfig, image string)) {
	t.Helper()
	withPod(t, func(t *testing.T, env *testenv.Env, pod string, config *runtimeapi.PodSandboxConfig) {
		notForPeers(t)
		test(t, env, pod, config, env.Pull(testenv.Nginx))
	})
}

// TestImageVolumes: an image of several layers and one of a single layer, whole,
// a directory and a file of it; always read-only.
func TestImageVolumes(t *testing.T) {
	withVolumeImage(t, func(t *testing.T, env *testenv.Env, pod string, podConfig *runtimeapi.PodSandboxConfig, image string) {
		config := env.ContainerConfig("main", "sleep 1000")
		config.Mounts = []*runtimeapi.Mount{
			imageMount(image, "/whole", ""),
			imageMount(testenv.Busybox, "/single", "."),
			imageMount(image, "/html", "usr/share/nginx/html"),
			imageMount(image, "/one/file", "etc/nginx/nginx.conf"),
			imageMount(image, "/linked", "var/run"), // a link to ../run
		}
		id := env.Run(pod, config, podConfig)
		env.Exec(id, "test -f /whole/usr/sbin/nginx && test -f /whole/bin/busybox && test -f /single/bin/busybox && test ! -e /single/usr/sbin/nginx")
		env.Exec(id, "test -f /html/index.html && grep -q worker_processes /one/file && test -d /linked")
		for _, script := range []string{"touch /whole/x", "rm /html/index.html", "echo > /one/file", "chmod 777 /single", "mount -o remount,rw /whole && touch /whole/x", "/whole/bin/busybox true"} {
			wantEqual(t, script, env.Exec(id, "("+script+") 2>/dev/null && echo done || echo refused"), "refused\n")
		}
		for _, mount := range hostMounts(t) {
			if strings.Contains(mount, "overlay") && strings.Contains(mount, env.Dir) {
				t.Errorf("the node sees %s", mount)
			}
		}
		status := env.Status(id)
		wantEqual(t, "mounts in the status", len(status.Mounts), 5)
		digest := imageStatus(t, env, testenv.Nginx).RepoDigests[0]
		wantEqual(t, "image", status.Mounts[0].GetImage().GetImage(), image)
		wantEqual(t, "image_ref", status.Mounts[0].GetImage().GetImageRef(), digest)
		wantEqual(t, "sub path", status.Mounts[2].GetImageSubPath(), "usr/share/nginx/html")
	})
}

func hostMounts(t *testing.T) []string {
	t.Helper()
	return strings.Split(readProc(t, os.Getpid(), "mountinfo"), "\n")
}

// TestImageVolumesStay: an image that a container mounts lives as long as the
// container, also when a new daemon has come, and is mounted for a restart of it.
func TestImageVolumesStay(t *testing.T) {
	withVolumeImage(t, func(t *testing.T, env *testenv.Env, pod string, podConfig *runtimeapi.PodSandboxConfig, image string) {
		config := env.ContainerConfig("main", "sleep 1000")
		config.Mounts = []*runtimeapi.Mount{imageMount(image, "/whole", "")}
		id := env.Create(pod, config, podConfig)
		layers := layerCount(t, env)
		_, err := env.Images.RemoveImage(env.Context(), &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: image}})
		wantCode(t, "RemoveImage", err, codes.OK)
		if imageStatus(t, env, testenv.Nginx) != nil {
			t.Error("a removed image has a status")
		}
		env.Kill9()
		env.StartDaemon()
		env.Start(id)
		env.Exec(id, "test -f /whole/usr/sbin/nginx && /bin/busybox cat /whole/usr/sbin/nginx >/dev/null")
		wantEqual(t, "layers", layerCount(t, env), layers)
		wantEqual(t, "image in the status", env.Status(id).Mounts[0].GetImage().GetImage(), image)

		again := env.ContainerConfig("again", "sleep 1000")
		again.Mounts = config.Mounts
		wantRefused(t, env, pod, again, podConfig, codes.NotFound, image)
		env.Remove(id)
		env.Eventually("the image's layer to go", func() error {
			if n := layerCount(t, env); n >= layers {
				return os.ErrExist
			}
			return nil
		})
	})
}

// layerCount counts the directories of layers on disk.
func layerCount(t *testing.T, env *testenv.Env) int {
	t.Helper()
	dirs, err := filepath.Glob(filepath.Join(env.Root, "storage/overlay", strings.Repeat("?", 64)))
	if err != nil {
		t.Fatal(err)
	}
	return len(dirs)
}

// TestBadImageVolumes: images that are not there and paths that lead nowhere or
// out of the image.
func TestBadImageVolumes(t *testing.T) {
	withVolumeImage(t, func(t *testing.T, env *testenv.Env, pod string, podConfig *runtimeapi.PodSandboxConfig, image string) {
		both := imageMount(image, "/v", "")
		both.HostPath = env.LogDir
		shared := imageMount(image, "/v", "")
		shared.Propagation = runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL
		for _, tt := range []struct {
			name  string
			mount *runtimeapi.Mount
			code  codes.Code
			words string
		}{
			{"missing-image", imageMount("docker.io/library/never-pulled:1", "/v", ""), codes.NotFound, "never-pulled"},
			{"missing-path", imageMount(image, "/v", "no/such"), codes.InvalidArgument, "no/such"},
			{"absolute", imageMount(image, "/v", "/etc"), codes.InvalidArgument, "/etc"},
			{"upwards", imageMount(image, "/v", "../../etc"), codes.InvalidArgument, "../../etc"},
			{"inner-upwards", imageMount(image, "/v", "usr/../../etc"), codes.InvalidArgument, "usr/../../etc"},
			{"below-a-file", imageMount(image, "/v", "bin/busybox/x"), codes.InvalidArgument, "bin/busybox/x"},
			{"both", both, codes.InvalidArgument, "host_path"},
			{"shared", shared, codes.InvalidArgument, "private"},
			{"no-image", &runtimeapi.Mount{ContainerPath: "/v", HostPath: env.LogDir, ImageSubPath: "x"}, codes.InvalidArgument, "image_sub_path"},
		} {
			config := env.ContainerConfig(tt.name, "true")
			config.Mounts = []*runtimeapi.Mount{tt.mount}
			wantRefused(t, env, pod, config, podConfig, tt.code, tt.words)
		}
	})
}

// TestImageVolumeInUserNamespace: the files of the image have their owners inside.
func TestImageVolumeInUserNamespace(t *testing.T) {
	withUserNS(t, func(t *testing.T, env *testenv.Env) {
		image := env.Pull(testenv.Nginx)
		podConfig := usernsPod(env, "pod")
		pod := env.RunPod(podConfig)
		config := usernsContainer(env, "main", "sleep 1000")
		whole := imageMount(image, "/whole", "")
		whole.UidMappings, whole.GidMappings = idMapping(usernsHost, usernsLength), idMapping(usernsHost, usernsLength)
		config.Mounts = []*runtimeapi.Mount{whole, imageMount(testenv.Busybox, "/home-dirs", "home")}
		id := env.Run(pod, config, podConfig)
		wantEqual(t, "owners", env.Exec(id, "stat -c %u:%g /whole /whole/usr/sbin/nginx /whole/home/default-user /home-dirs /home-dirs/default-user"),
			"0:0\n0:0\n1000:1000\n0:0\n1000:1000\n")
		wantEqual(t, "a write", env.Exec(id, "touch /whole/x 2>/dev/null || echo refused"), "refused\n")
	})
}

// TestHostileImage: links of an image lead nowhere but into the container,
// whether they are on the way to a mount, to a volume's sub path or to the
// working directory.
func TestHostileImage(t *testing.T) {
	withPod(t, func(t *testing.T, env *testenv.Env, pod string, podConfig *runtimeapi.PodSandboxConfig) {
		notForPeers(t)
		const links = "docker.io/library/links:latest"
		image := env.Pull(links)
		host := filepath.Join(env.Dir, "volume")
		if err := os.Mkdir(host, 0o755); err != nil {
			t.Fatal(err)
		}
		touch(t, filepath.Join(host, "file"))
		escape := "escape-" + env.Name
		config := env.ContainerConfig("main", "sleep 1000")
		config.Image = &runtimeapi.ImageSpec{Image: links}
		config.WorkingDir = "/upwards/" + escape + "-dir"
		config.Mounts = []*runtimeapi.Mount{
			{HostPath: host, ContainerPath: "/absolute/" + escape + "-1"},
			{HostPath: host, ContainerPath: "/upwards/" + escape + "-2/deep"},
			{HostPath: host, ContainerPath: "/../../.." + os.TempDir() + "/" + escape + "-3"},
			imageMount(image, "/absolute/"+escape+"-4", "upwards"),
			imageMount(image, "/v5", "absolute/inside"),
		}
		id := env.Run(pod, config, podConfig)
		env.Exec(id, "cd /tmp && test -f "+escape+"-1/file && test -f "+escape+"-2/deep/file && test -f "+escape+"-3/file")
		wantEqual(t, "files of the image", env.Exec(id, "cat /tmp/"+escape+"-4/inside /v5"), "of the image\nof the image\n")
		wantEqual(t, "working directory", env.Exec(id, "pwd -P"), "/tmp/"+escape+"-dir\n")
		if found, err := filepath.Glob(filepath.Join("/tmp", escape+"*")); err != nil || len(found) > 0 {
			t.Errorf("on the node: %v, %v", found, err)
		}
		bad := env.ContainerConfig("process", "true")
		bad.Mounts = []*runtimeapi.Mount{imageMount(image, "/v", "process")}
		wantRefused(t, env, pod, bad, podConfig, codes.InvalidArgument, "process")
	})
}
