package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/test/testenv"
)

// TestMounts: directories and files, read-write and read-only.
func TestMounts(t *testing.T) {
	withPod(t, func(t *testing.T, env *testenv.Env, pod string, podConfig *runtimeapi.PodSandboxConfig) {
		host := filepath.Join(env.Dir, "volume")
		if err := os.Mkdir(host, 0o777); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(host, "file")
		if err := os.WriteFile(file, []byte("from the node\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		config := env.ContainerConfig("main", "sleep 1000")
		config.Mounts = []*runtimeapi.Mount{
			{HostPath: host, ContainerPath: "/rw"},
			{HostPath: host, ContainerPath: "/deep/er/ro", Readonly: true},
			{HostPath: file, ContainerPath: "/etc/one-file", Readonly: true},
		}
		id := env.Run(pod, config, podConfig)
		wantEqual(t, "file", env.Exec(id, "cat /rw/file /deep/er/ro/file /etc/one-file"), strings.Repeat("from the node\n", 3))
		wantEqual(t, "read-only", env.Exec(id, "touch /deep/er/ro/x 2>/dev/null || echo refused"), "refused\n")
		env.Exec(id, "echo back > /rw/back")
		data, err := os.ReadFile(filepath.Join(host, "back"))
		if err != nil || string(data) != "back\n" {
			t.Errorf("what the container wrote: %q, %v", data, err)
		}
	})
}

// TestMountPropagation: what is mounted on one side after the start is seen on
// the other as the mount's propagation says.
func TestMountPropagation(t *testing.T) {
	for _, tt := range []struct {
		mode       runtimeapi.MountPropagation
		down, back bool
	}{
		{runtimeapi.MountPropagation_PROPAGATION_PRIVATE, false, false},
		{runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER, true, false},
		{runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL, true, true},
	} {
		t.Run(tt.mode.String(), func(t *testing.T) {
			withPod(t, func(t *testing.T, env *testenv.Env, pod string, podConfig *runtimeapi.PodSandboxConfig) {
				testPropagation(t, env, pod, podConfig, tt.mode, tt.down, tt.back)
			})
		})
	}
}

func testPropagation(t *testing.T, env *testenv.Env, pod string, podConfig *runtimeapi.PodSandboxConfig, mode runtimeapi.MountPropagation, down, back bool) {
	host := filepath.Join(env.Dir, "volume")
	for _, dir := range []string{"down", "back"} {
		if err := os.MkdirAll(filepath.Join(host, dir), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	config := env.ContainerConfig("main", "sleep 1000")
	config.Mounts = []*runtimeapi.Mount{{HostPath: host, ContainerPath: "/v", Propagation: mode}}
	config.Linux.SecurityContext = &runtimeapi.LinuxContainerSecurityContext{
		Capabilities: &runtimeapi.Capability{AddCapabilities: []string{"SYS_ADMIN"}},
	}
	id := env.Run(pod, config, podConfig)

	if err := unix.Mount("tmpfs", filepath.Join(host, "down"), "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(filepath.Join(host, "down"), unix.MNT_DETACH)
	if err := os.WriteFile(filepath.Join(host, "down", "mark"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	wantEqual(t, "the node's mount in the container", env.Exec(id, "test -e /v/down/mark && echo -n seen || true") == "seen", down)

	env.Exec(id, "mount -t tmpfs tmpfs /v/back && touch /v/back/mark")
	_, err := os.Stat(filepath.Join(host, "back", "mark"))
	wantEqual(t, "the container's mount on the node", err == nil, back)
	env.Exec(id, "umount /v/back")
}
