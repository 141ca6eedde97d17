package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
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
		Apparmor:     &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}, // the default one forbids mounting
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

// TestRecursiveReadOnly: what is mounted below a read-only volume is read-only
// too if that is asked for, and only then.
func TestRecursiveReadOnly(t *testing.T) {
	withPod(t, func(t *testing.T, env *testenv.Env, pod string, podConfig *runtimeapi.PodSandboxConfig) {
		notForPeers(t)
		host := filepath.Join(env.Dir, "volume")
		below := filepath.Join(host, "below")
		if err := os.MkdirAll(below, 0o777); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("tmpfs", below, "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
		defer unix.Unmount(below, unix.MNT_DETACH)
		wantEqual(t, "recursive_read_only_mounts of the handler", handlerFeatures(t, env).RecursiveReadOnlyMounts, true)
		config := env.ContainerConfig("main", "sleep 1000")
		config.Mounts = []*runtimeapi.Mount{
			{HostPath: host, ContainerPath: "/ro", Readonly: true},
			{HostPath: host, ContainerPath: "/rro", Readonly: true, RecursiveReadOnly: true},
		}
		id := env.Run(pod, config, podConfig)
		wantEqual(t, "writes", env.Exec(id, "for f in /ro/x /ro/below/x /rro/x /rro/below/y; do touch $f 2>/dev/null && echo done || echo refused; done"),
			"refused\ndone\nrefused\nrefused\n")
		for _, m := range []*runtimeapi.Mount{
			{HostPath: host, ContainerPath: "/v", RecursiveReadOnly: true},
			{HostPath: host, ContainerPath: "/v", RecursiveReadOnly: true, Readonly: true, Propagation: runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER},
			{HostPath: host, ContainerPath: "/v", RecursiveReadOnly: true, Readonly: true, Propagation: runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL},
		} {
			bad := env.ContainerConfig("bad", "true")
			bad.Mounts = []*runtimeapi.Mount{m}
			wantRefused(t, env, pod, bad, podConfig, codes.InvalidArgument, "recursive_read_only")
		}
	})
}

// TestMountOptions: what a request says of programs, devices and set-uid files
// on a volume.
func TestMountOptions(t *testing.T) {
	withPod(t, func(t *testing.T, env *testenv.Env, pod string, podConfig *runtimeapi.PodSandboxConfig) {
		notForPeers(t)
		host := filepath.Join(env.Dir, "volume")
		if err := os.Mkdir(host, 0o755); err != nil {
			t.Fatal(err)
		}
		script(t, host, "program", "echo ran\n")
		if err := unix.Mknod(filepath.Join(host, "null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))); err != nil {
			t.Fatal(err)
		}
		resp, err := env.Runtime.Status(env.Context(), &runtimeapi.StatusRequest{})
		wantCode(t, "Status", err, codes.OK)
		wantEqual(t, "mount_options", resp.GetFeatures().GetMountOptions(), true)
		config := env.ContainerConfig("main", "sleep 1000")
		config.Mounts = []*runtimeapi.Mount{
			{HostPath: host, ContainerPath: "/free"},
			{HostPath: host, ContainerPath: "/strict", MountOptions: []string{"noexec", "nodev", "nosuid"}},
		}
		id := env.Run(pod, config, podConfig)
		wantEqual(t, "without options", env.Exec(id, "/free/program; echo x > /free/null && echo written"), "ran\nwritten\n")
		wantEqual(t, "with options", env.Exec(id, "/strict/program 2>/dev/null || echo refused; (echo x > /strict/null) 2>/dev/null || echo refused"), "refused\nrefused\n")
		wantContains(t, "options", env.Exec(id, "grep ' /strict ' /proc/mounts"), "nosuid,nodev,noexec")
		for _, option := range []string{"bind", "rw,exec", "size=1m", "remount", ""} {
			bad := env.ContainerConfig("bad", "true")
			bad.Mounts = []*runtimeapi.Mount{{HostPath: host, ContainerPath: "/v", MountOptions: []string{option}}}
			wantRefused(t, env, pod, bad, podConfig, codes.InvalidArgument, "option")
		}
	})
}

// TestMountSources: links, missing paths, files, file systems and devices.
func TestMountSources(t *testing.T) {
	withPod(t, func(t *testing.T, env *testenv.Env, pod string, podConfig *runtimeapi.PodSandboxConfig) {
		notForPeers(t)
		host := filepath.Join(env.Dir, "volume")
		fs := filepath.Join(env.Dir, "fs")
		for _, dir := range []string{host, fs} {
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := unix.Mount("tmpfs", fs, "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
		defer unix.Unmount(fs, unix.MNT_DETACH)
		touch(t, filepath.Join(host, "file"))
		touch(t, filepath.Join(fs, "in-tmpfs"))
		block := filepath.Join(env.Dir, "block")
		if err := unix.Mknod(block, unix.S_IFBLK|0o600, int(unix.Mkdev(7, 200))); err != nil {
			t.Fatal(err)
		}
		for name, target := range map[string]string{"link": host, "file-link": "volume/file", "dangling": "/no/such/target"} {
			if err := os.Symlink(target, filepath.Join(env.Dir, name)); err != nil {
				t.Fatal(err)
			}
		}
		in := func(name string) string { return filepath.Join(env.Dir, name) }
		config := env.ContainerConfig("main", "sleep 1000")
		config.Mounts = []*runtimeapi.Mount{
			{HostPath: in("link"), ContainerPath: "/link"},
			{HostPath: in("file-link"), ContainerPath: "/file-link"},
			{HostPath: in("made/by/gantry"), ContainerPath: "/made"},
			{HostPath: fs, ContainerPath: "/fs"},
			{HostPath: block, ContainerPath: "/dev/disk"},
			{HostPath: filepath.Join(host, "file"), ContainerPath: "/dev/termination-log"},
			{HostPath: host, ContainerPath: "/dev/deep/er"},
			{HostPath: host, ContainerPath: "/etc/a/../b", SelinuxRelabel: true},
		}
		id := env.Run(pod, config, podConfig)
		env.Exec(id, "test -f /link/file && test -f /file-link && test -d /made && test -f /fs/in-tmpfs && test -b /dev/disk")
		env.Exec(id, "test -f /dev/termination-log && test -f /dev/deep/er/file && test -f /etc/b/file && test ! -e /etc/a")
		env.Exec(id, "echo bye > /dev/termination-log")
		if data, err := os.ReadFile(filepath.Join(host, "file")); err != nil || string(data) != "bye\n" {
			t.Errorf("termination log: %q, %v", data, err)
		}
		wantEqual(t, "a device that was not given", env.Exec(id, "head -c 1 /dev/disk 2>/dev/null || echo refused"), "refused\n")
		if info, err := os.Stat(in("made/by/gantry")); err != nil || !info.IsDir() {
			t.Errorf("a missing host path: %v", err)
		}
		for name, m := range map[string]*runtimeapi.Mount{
			"dangling": {HostPath: in("dangling"), ContainerPath: "/v"},
			"relative": {HostPath: "volume", ContainerPath: "/v"},
			"empty":    {ContainerPath: "/v"},
			"inside":   {HostPath: host, ContainerPath: "v"},
			"root":     {HostPath: host, ContainerPath: "/v/.."},
		} {
			bad := env.ContainerConfig(name, "true")
			bad.Mounts = []*runtimeapi.Mount{m}
			wantRefused(t, env, pod, bad, podConfig, codes.InvalidArgument, "mount")
		}
	})
}

// TestMountOrder: nested mounts in whatever order they are asked for, two at one
// place, and those that replace what every container has.
func TestMountOrder(t *testing.T) {
	withPod(t, func(t *testing.T, env *testenv.Env, pod string, podConfig *runtimeapi.PodSandboxConfig) {
		notForPeers(t)
		dir := func(name string) string {
			path := filepath.Join(env.Dir, "volumes", name)
			if err := os.MkdirAll(path, 0o755); err != nil {
				t.Fatal(err)
			}
			touch(t, filepath.Join(path, "is-"+name))
			return path
		}
		config := env.ContainerConfig("main", "sleep 1000")
		config.Mounts = []*runtimeapi.Mount{
			{HostPath: dir("inner"), ContainerPath: "/outer/deep/inner"},
			{HostPath: dir("outer"), ContainerPath: "/outer"},
			{HostPath: dir("first"), ContainerPath: "/same"},
			{HostPath: dir("second"), ContainerPath: "/same/"},
			{HostPath: dir("shm"), ContainerPath: "/dev/shm"},
			{HostPath: filepath.Join(dir("hosts"), "is-hosts"), ContainerPath: "/etc/hosts"},
			{HostPath: filepath.Join(dir("etc"), "is-etc"), ContainerPath: "/etc/resolv.conf", Readonly: true},
		}
		id := env.Run(pod, config, podConfig)
		env.Exec(id, "test -e /outer/is-outer && test -e /outer/deep/inner/is-inner")
		wantEqual(t, "two at one place", env.Exec(id, "ls /same"), "is-second\n")
		wantEqual(t, "/dev/shm", env.Exec(id, "ls /dev/shm"), "is-shm\n")
		wantEqual(t, "files of /etc", env.Exec(id, "cat /etc/hosts /etc/resolv.conf; (echo x >> /etc/resolv.conf) 2>/dev/null || echo refused"), "refused\n")
		env.Exec(id, "echo '10.0.0.9 nine' > /etc/hosts")
		if data, err := os.ReadFile(filepath.Join(env.Dir, "volumes/hosts/is-hosts")); err != nil || string(data) != "10.0.0.9 nine\n" {
			t.Errorf("the hosts file of the request: %q, %v", data, err)
		}
	})
}
