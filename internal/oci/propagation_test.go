package oci

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/internal/errkind"
)

// insideEnv tells the test that it runs in a mount namespace of its own.
const insideEnv = "GANTRY_TEST_SHARED_DIR"

// TestPropagation runs itself again in a mount namespace that has a shared
// mount, whatever the node's own mounts are.
func TestPropagation(t *testing.T) {
	if dir := os.Getenv(insideEnv); dir != "" {
		for _, name := range runtimes {
			t.Run(name, func(t *testing.T) { testPropagation(t, openRuntime(t, name), dir) })
		}
		return
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cmd := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-ec",
		`mount -t tmpfs x "$0"; mount --make-shared "$0"; exec "$1" -test.run '^TestPropagation$' -test.v`, dir, self)
	cmd.Env = append(os.Environ(), insideEnv+"="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func testPropagation(t *testing.T, r *Runtime, dir string) {
	dir = filepath.Join(dir, r.Handler())
	for _, sub := range []string{"a", "b"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	c := startInput(t, r, func(in *ContainerInput, c *containerConfig, sc *securityContext) {
		sc.Privileged, in.Sandbox.Linux.SecurityContext.Privileged = true, true
		for path, propagation := range map[string]runtimeapi.MountPropagation{
			"/both":    runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL,
			"/from":    runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER,
			"/neither": runtimeapi.MountPropagation_PROPAGATION_PRIVATE,
		} {
			c.Mounts = append(c.Mounts, &runtimeapi.Mount{ContainerPath: path, HostPath: dir, Propagation: propagation})
		}
	})
	c.sh(t, "mount -t tmpfs x /both/a && touch /both/a/made-inside")
	if _, err := os.Stat(filepath.Join(dir, "a/made-inside")); err != nil {
		t.Errorf("a mount of the container does not reach the host: %v", err)
	}
	if err := unix.Mount("x", filepath.Join(dir, "b"), "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "b/made-outside"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if got := c.sh(t, "ls /both/b /from/b /neither/b"); got != "/both/b:\nmade-outside\n\n/from/b:\nmade-outside\n\n/neither/b:" {
		t.Errorf("after a mount on the host the container sees %q", got)
	}
	private := &runtimeapi.Mount{
		ContainerPath: "/x", HostPath: "/proc", Propagation: runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL,
	}
	if _, err := Prepare(&containerConfig{Mounts: []*runtimeapi.Mount{private}}, PrepareOptions{}); errkind.Of(err) != errkind.Precondition {
		t.Errorf("a shared mount of a private one: kind %v, %v", errkind.Of(err), err)
	}
}
