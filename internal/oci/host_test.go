package oci

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	rspec "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/internal/errkind"
)

// linkDir is a directory with a link "link" to its directory "real".
func linkDir(t *testing.T) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "real"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, link := range [][2]string{{"real", "link"}, {"nowhere", "dangling"}, {"loop", "loop"}} {
		if err := os.Symlink(link[0], filepath.Join(dir, link[1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestPrepareMounts(t *testing.T) {
	dir := linkDir(t)
	var mounts []*runtimeapi.Mount
	for _, path := range []string{"real", "link", "link/made/deep", "missing", "file"} {
		mounts = append(mounts, &runtimeapi.Mount{ContainerPath: "/x", HostPath: filepath.Join(dir, path)})
	}
	mounts = append(mounts, &runtimeapi.Mount{ContainerPath: "/x", Image: &runtimeapi.ImageSpec{Image: "i"}})
	facts, err := Prepare(&containerConfig{Mounts: mounts}, PrepareOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"real", "real", "real/made/deep", "missing", "file"}
	for i, path := range want {
		if facts.Mounts[i] != filepath.Join(dir, path) {
			t.Errorf("%s is %s", mounts[i].HostPath, facts.Mounts[i])
		}
		if _, err := os.Stat(facts.Mounts[i]); err != nil {
			t.Error(err)
		}
	}
	if facts.Mounts[5] != "" {
		t.Errorf("the image mount has host path %q", facts.Mounts[5])
	}
	for _, path := range []string{"", "relative", filepath.Join(dir, "dangling"), filepath.Join(dir, "loop"), filepath.Join(dir, "file", "below")} {
		_, err := Prepare(&containerConfig{Mounts: []*runtimeapi.Mount{{ContainerPath: "/x", HostPath: path}}}, PrepareOptions{})
		if errkind.Of(err) != errkind.Invalid {
			t.Errorf("host path %q: kind %v, %v", path, errkind.Of(err), err)
		}
	}
	both := &runtimeapi.Mount{ContainerPath: "/x", HostPath: dir, Image: &runtimeapi.ImageSpec{Image: "i"}}
	if _, err := Prepare(&containerConfig{Mounts: []*runtimeapi.Mount{both}}, PrepareOptions{}); errkind.Of(err) != errkind.Invalid {
		t.Errorf("image and host path: %v", err)
	}
}

func TestMountOf(t *testing.T) {
	const mountinfo = `27 1 254:0 / / rw - ext4 /dev/vda rw
23 27 0:22 / /sys rw shared:7 - sysfs sysfs rw
50 27 0:50 / /mnt rw shared:8 master:9 - ext4 /dev/vdb rw
51 50 0:51 / /mnt/with\040space rw,relatime master:9 - ext4 /dev/vdb rw
52 27 0:52 / /over rw shared:3 - tmpfs tmpfs rw
53 52 0:53 / /over rw - tmpfs tmpfs rw
broken
`
	for _, c := range []struct {
		path, at      string
		shared, slave bool
	}{
		{"/", "/", false, false},
		{"/systematic", "/", false, false},
		{"/sys", "/sys", true, false},
		{"/sys/fs", "/sys", true, false},
		{"/mnt/x", "/mnt", true, true},
		{"/mnt/with space/x", "/mnt/with space", false, true},
		{"/over/x", "/over", false, false},
	} {
		at, shared, slave := mountOf(mountinfo, c.path)
		if at != c.at || shared != c.shared || slave != c.slave {
			t.Errorf("%s: %s, shared %v, slave %v", c.path, at, shared, slave)
		}
	}
}

func TestPrepareDevices(t *testing.T) {
	dir := linkDir(t)
	for i, name := range []string{"real/a", "real/b"} {
		if err := unix.Mknod(filepath.Join(dir, name), unix.S_IFCHR|0o640, int(unix.Mkdev(1, uint32(3+i)))); err != nil {
			t.Fatal(err)
		}
	}
	config := &containerConfig{Devices: []*runtimeapi.Device{
		{HostPath: "/dev/null", ContainerPath: "/dev/x"},
		{HostPath: filepath.Join(dir, "link"), ContainerPath: "/dev/y"},
		{HostPath: "/dev/zero"},
	}}
	facts, err := Prepare(config, PrepareOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, nodes := range facts.Devices {
		for _, d := range nodes {
			got = append(got, d.Path)
			if d.Type != "c" || d.Major != 1 {
				t.Errorf("%+v", d)
			}
		}
	}
	if want := []string{"/dev/x", "/dev/y/a", "/dev/y/b", "/dev/zero"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if d := facts.Devices[1][0]; *d.FileMode != 0o640 || *d.UID != 0 || d.Minor != 3 {
		t.Errorf("%+v", d)
	}
	for _, path := range []string{"", "dev/null", "/dev/no-such-device", filepath.Join(dir, "file")} {
		_, err := Prepare(&containerConfig{Devices: []*runtimeapi.Device{{HostPath: path}}}, PrepareOptions{})
		if errkind.Of(err) != errkind.Invalid {
			t.Errorf("device %q: kind %v, %v", path, errkind.Of(err), err)
		}
	}
}

func TestPreparePrivileged(t *testing.T) {
	sc := &securityContext{
		Privileged: true,
		Seccomp:    &profile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: "/no/such/profile"},
	}
	facts, err := Prepare(&containerConfig{Linux: &runtimeapi.LinuxContainerConfig{SecurityContext: sc}}, PrepareOptions{})
	if err != nil || facts.Seccomp != nil {
		t.Fatal(err)
	}
	has := func(path string) bool {
		return slices.ContainsFunc(facts.AllDevices, func(d rspec.LinuxDevice) bool { return strings.HasPrefix(d.Path, path) })
	}
	if !has("/dev/null") || has("/dev/pts/") || has("/dev/console") {
		t.Errorf("%v", facts.AllDevices)
	}
}

func TestPrepareSeccomp(t *testing.T) {
	dir := linkDir(t)
	path := filepath.Join(dir, "file")
	localhost := func(ref string) *profile {
		return &profile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: ref}
	}
	for _, c := range []struct {
		sc      *securityContext
		options PrepareOptions
		want    string // "-" is an error
	}{
		{nil, PrepareOptions{SeccompProfile: path}, ""},
		{&securityContext{Seccomp: &profile{}}, PrepareOptions{}, ""},
		{&securityContext{Seccomp: &profile{}}, PrepareOptions{SeccompProfile: path}, "x"},
		{&securityContext{Seccomp: &profile{}}, PrepareOptions{SeccompProfile: dir + "/none"}, "-"},
		{&securityContext{Seccomp: localhost(path)}, PrepareOptions{}, "x"},
		{&securityContext{Seccomp: localhost("localhost/" + path)}, PrepareOptions{}, "x"},
		//lint:ignore SA1019 old clients still set it
		{&securityContext{SeccompProfilePath: "localhost/" + path}, PrepareOptions{}, "x"},
		//lint:ignore SA1019 old clients still set it
		{&securityContext{SeccompProfilePath: "runtime/default"}, PrepareOptions{SeccompProfile: path}, "x"},
		{&securityContext{Seccomp: localhost("file")}, PrepareOptions{}, "-"},
		{&securityContext{Seccomp: localhost(dir)}, PrepareOptions{}, "-"},
		{&securityContext{Seccomp: localhost("")}, PrepareOptions{}, "-"},
	} {
		facts, err := Prepare(&containerConfig{Linux: &runtimeapi.LinuxContainerConfig{SecurityContext: c.sc}}, c.options)
		if (c.want == "-") != (errkind.Of(err) == errkind.Invalid) || c.want != "-" && string(facts.Seccomp) != c.want {
			t.Errorf("%v: %q, %v", c.sc, facts.Seccomp, err)
		}
	}
	sandbox := &runtimeapi.PodSandboxConfig{Linux: &runtimeapi.LinuxPodSandboxConfig{
		SecurityContext: &sandboxContext{Seccomp: localhost(path)},
	}}
	if text, err := PrepareSandbox(sandbox, PrepareOptions{}); err != nil || string(text) != "x" {
		t.Errorf("sandbox: %q, %v", text, err)
	}
}
