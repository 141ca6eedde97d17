package integration

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/test/testenv"
)

const enforceFile = "/sys/fs/selinux/enforce"

// TestSELinux: where the kernel has SELinux, containers run under the policy's
// label for them, with categories of their pod's own, which keep other pods out
// of its files. Without it labels mean nothing, and pods that ask for some run
// all the same: what is deployed asks for them on every node.
func TestSELinux(t *testing.T) {
	withPod(t, func(t *testing.T, env *testenv.Env, pod string, podConfig *runtimeapi.PodSandboxConfig) {
		notForPeers(t)
		if _, err := os.Stat(enforceFile); err != nil {
			testWithoutSELinux(t, env)
			return
		}
		testSELinuxOptions(t, env, pod, podConfig)
		testSELinuxFiles(t, env, pod, podConfig)
	})
}

func testWithoutSELinux(t *testing.T, env *testenv.Env) {
	for i, label := range []*runtimeapi.SELinuxOption{{Type: "container_t", Level: "s0:c1,c2"}, {Type: "spc_t"}, {Level: "s0"}} {
		podConfig := env.PodConfig(fmt.Sprint("pod-", i))
		podConfig.Linux.SecurityContext = &runtimeapi.LinuxSandboxSecurityContext{SelinuxOptions: label}
		pod := env.RunPod(podConfig)
		config := env.ContainerConfig("main", "sleep 1000")
		config.Linux.SecurityContext = &securityContext{SelinuxOptions: label}
		config.Mounts = []*runtimeapi.Mount{{HostPath: t.TempDir(), ContainerPath: "/m", SelinuxRelabel: true}}
		wantEqual(t, "exec", env.Exec(env.Run(pod, config, podConfig), "touch /m/x && echo hi"), "hi\n")
	}
}

// processLabel is what a command in the container runs under; so does its init.
func processLabel(t *testing.T, env *testenv.Env, container string) string {
	t.Helper()
	init, err := os.ReadFile(fmt.Sprintf("/proc/%d/attr/current", initPID(t, container)))
	if err != nil {
		t.Fatal(err)
	}
	label := strings.Trim(string(init), "\x00\n")
	wantEqual(t, "a command's label", strings.Trim(env.Exec(container, "cat /proc/self/attr/current"), "\x00\n"), label)
	return label
}

// fileLabel is a file's, as the container's init sees it.
func fileLabel(t *testing.T, env *testenv.Env, container, path string) string {
	t.Helper()
	buf := make([]byte, 256)
	n, err := unix.Getxattr(fmt.Sprintf("/proc/%d/root%s", initPID(t, container), path), "security.selinux", buf)
	if err != nil {
		t.Errorf("label of %s: %v", path, err)
		return ""
	}
	return string(bytes.TrimRight(buf[:n], "\x00"))
}

func testSELinuxOptions(t *testing.T, env *testenv.Env, pod string, podConfig *runtimeapi.PodSandboxConfig) {
	own := processLabel(t, env, runSecure(env, pod, podConfig, "own", nil))
	level, ok := strings.CutPrefix(own, "system_u:system_r:container_t:")
	if !ok || !strings.HasPrefix(level, "s0:c") {
		t.Fatalf("the label is %q", own)
	}
	wantEqual(t, "another container of the pod", processLabel(t, env, runSecure(env, pod, podConfig, "second", nil)), own)
	asked := runSecure(env, pod, podConfig, "asked", &securityContext{SelinuxOptions: &runtimeapi.SELinuxOption{Level: "s0:c1,c2"}})
	wantEqual(t, "a level of its own", processLabel(t, env, asked), "system_u:system_r:container_t:s0:c1,c2")
	wantEqual(t, "its files", fileLabel(t, env, asked, "/bin/sh"), "system_u:object_r:container_file_t:s0:c1,c2")
	free := env.PodConfig("free")
	free.Linux.SecurityContext = &runtimeapi.LinuxSandboxSecurityContext{Privileged: true}
	freePod := env.RunPod(free)
	for name, sc := range map[string]*securityContext{
		"privileged": {Privileged: true},
		"node-pids":  {NamespaceOptions: &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_NODE}},
	} {
		if label := processLabel(t, env, runSecure(env, freePod, free, name, sc)); strings.Contains(label, "container_t") {
			t.Errorf("%s: runs under %q", name, label)
		}
	}
	refused(t, env, pod, podConfig, "a type that there is not", &securityContext{SelinuxOptions: &runtimeapi.SELinuxOption{Type: "no_such_t"}}, codes.InvalidArgument)
}

// testSELinuxFiles: with the policy enforced a pod uses all of its own files and
// none of another's.
func testSELinuxFiles(t *testing.T, env *testenv.Env, pod string, podConfig *runtimeapi.PodSandboxConfig) {
	volume := t.TempDir()
	if err := os.WriteFile(filepath.Join(volume, "secret"), []byte("hi\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	config := env.ContainerConfig("with-volume", "sleep 1000")
	config.Mounts = []*runtimeapi.Mount{{HostPath: volume, ContainerPath: "/m", SelinuxRelabel: true}}
	owner := env.Run(pod, config, podConfig)
	_, level, _ := strings.Cut(processLabel(t, env, owner), "container_t:")
	for _, path := range []string{"/bin/sh", "/dev/shm", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/m", "/m/secret"} {
		wantEqual(t, path, fileLabel(t, env, owner, path), "system_u:object_r:container_file_t:"+level)
	}
	other := env.PodConfig("other")
	config = env.ContainerConfig("uninvited", "sleep 1000")
	config.Mounts = []*runtimeapi.Mount{{HostPath: volume, ContainerPath: "/m"}}
	stranger := env.Run(env.RunPod(other), config, other)

	enforce(t)
	wantEqual(t, "the owner", env.Exec(owner, "cat /m/secret; echo x >/m/new && echo y >/dev/shm/y && echo z >/z && cat /etc/hosts /etc/hostname /etc/resolv.conf >/dev/null && echo all"), "hi\nall\n")
	wantEqual(t, "a stranger", env.Exec(stranger, "cat /m/secret 2>&1; echo x 2>&1 >/m/theirs; echo; ls /m >/dev/null 2>&1 || echo none"),
		"cat: can't open '/m/secret': Permission denied\nsh: can't create /m/theirs: Permission denied\n\nnone\n")
	config = env.ContainerConfig("while-enforced", "echo started; sleep 1000")
	env.Run(pod, config, podConfig)
	env.WaitLog(filepath.Join(podConfig.LogDirectory, "while-enforced.log"), "started")
}

// enforcing is who wants the kernel to enforce the policy: each test that runs.
var enforcing struct {
	sync.Mutex
	tests  int
	before []byte
}

// enforce has the kernel enforce the policy for the rest of the test.
func enforce(t *testing.T) {
	t.Helper()
	e := &enforcing
	set := func(value []byte) {
		if err := os.WriteFile(enforceFile, value, 0); err != nil {
			t.Error(err)
		}
	}
	e.Lock()
	defer e.Unlock()
	if e.tests++; e.tests == 1 {
		var err error
		if e.before, err = os.ReadFile(enforceFile); err != nil {
			t.Error(err)
		}
		set([]byte("1"))
	}
	t.Cleanup(func() {
		e.Lock()
		defer e.Unlock()
		if e.tests--; e.tests == 0 {
			set(e.before)
		}
	})
}
