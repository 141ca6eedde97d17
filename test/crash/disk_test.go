package crash

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/test/testenv"
)

// A disk is what one of the daemon's directories is on in a test.
type disk struct {
	name string
	dir  func(*testenv.Env) string
	// mount mounts it on an empty directory.
	mount func(env *testenv.Env, dir string) error
	run   bool // it is the run root's
	// inodes is whether it is these that run out.
	inodes bool
}

func runRoot(env *testenv.Env) string { return env.RunRoot }
func root(env *testenv.Env) string    { return env.Root }

func tmpfs(options string) func(*testenv.Env, string) error {
	return func(_ *testenv.Env, dir string) error { return unix.Mount("disk", dir, "tmpfs", 0, options) }
}

// ext4 makes a file system in a file, without blocks that are root's alone.
func ext4(options ...string) func(*testenv.Env, string) error {
	return func(env *testenv.Env, dir string) error {
		image := filepath.Join(env.Dir, "disk.img")
		make := append([]string{"-q", "-F", "-m", "0", "-O", "^has_journal"}, options...)
		if out, err := exec.Command("mke2fs", append(append([]string{"-t", "ext4"}, make...), image, "64m")...).CombinedOutput(); err != nil {
			return fmt.Errorf("mke2fs: %w: %s", err, out)
		}
		if out, err := exec.Command("mount", "-o", "loop", image, dir).CombinedOutput(); err != nil {
			return fmt.Errorf("mount: %w: %s", err, out)
		}
		return nil
	}
}

// TestFullDisks: with no space, or no inodes, on the disk of the run root or of
// the root, containers go on and their ends are recorded; the daemon can be
// started; what can't be done is refused with ResourceExhausted and leaves
// nothing; what runs can be stopped and removed; and when there is room again,
// everything works.
func TestFullDisks(t *testing.T) {
	for _, d := range []disk{
		{"run root, space", runRoot, tmpfs("size=16m"), true, false},
		{"run root, inodes", runRoot, tmpfs("size=64m,nr_inodes=4k"), true, true},
		{"root, space", root, ext4(), false, false},
		{"root, inodes", root, ext4("-N", "2048"), false, true},
	} {
		t.Run(d.name, func(t *testing.T) {
			o := testenv.Options{Mount: func(env *testenv.Env) error { return d.mount(env, d.dir(env)) }}
			one(t, o, func(t *testing.T, env *testenv.Env) { d.test(t, env) })
		})
	}
}

func (d disk) test(t *testing.T, env *testenv.Env) {
	env.Pull(testenv.Busybox)
	config := env.PodConfig("pod")
	pod := env.RunPod(config)
	running := env.Run(pod, env.ContainerConfig("running", "i=0; while :; do echo $i; i=$((i+1)); sleep 0.05; done"), config)
	ending := env.Run(pod, env.ContainerConfig("ending", "trap 'exit 6' TERM; echo ready; while :; do sleep 0.05; done"), config)
	stopped := env.Run(pod, env.ContainerConfig("stopped", "trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done"), config)
	for _, name := range []string{"ending", "stopped"} {
		env.WaitLog(filepath.Join(config.LogDirectory, name+".log"), "ready")
	}
	doomed := env.RunPod(env.PodConfig("doomed"))

	filler := d.fill(t, d.dir(env))
	stop := watch(t, env, "full disk: "+d.name, pod, running)
	d.refused(t, env, pod, config)
	if !d.run {
		_, err := env.Images.PullImage(env.Context(), &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: testenv.Nginx}})
		wantExhausted(t, "PullImage", err)
	}
	signalInit(t, ending, syscall.SIGTERM)
	wantCode(t, "the ended container", env.WaitExit(ending), 6)
	env.Stop(stopped, exitGrace)
	wantCode(t, "the stopped container", env.WaitExit(stopped), 7)
	env.StopPod(doomed)
	stop()

	env.Kill9()
	env.StartDaemon()
	wantCode(t, "the ended container, for the next daemon", env.WaitExit(ending), 6)
	wantCode(t, "the stopped container, for the next daemon", env.WaitExit(stopped), 7)
	if state := env.Status(running).State; state != runtimeapi.ContainerState_CONTAINER_RUNNING {
		t.Errorf("the running container is %s", state)
	}
	if state := env.PodStatus(doomed).State; state != runtimeapi.PodSandboxState_SANDBOX_NOTREADY {
		t.Errorf("the stopped pod is %s", state)
	}
	env.RemovePod(doomed)
	env.Remove(ending)
	d.refused(t, env, pod, config)

	if err := os.RemoveAll(filler); err != nil {
		t.Fatal(err)
	}
	env.Run(pod, env.ContainerConfig("late", "sleep 1000"), config)
	if got := env.Exec(running, "echo yes"); got != "yes\n" {
		t.Errorf("the running container says %q", got)
	}
	other := env.PodConfig("other")
	env.Run(env.RunPod(other), env.ContainerConfig("main", "sleep 1000"), other)
}

// refused checks that new pods and containers are refused, and leave nothing.
// A disk that has just had room for what was removed is filled again.
func (d disk) refused(t *testing.T, env *testenv.Env, pod string, config *runtimeapi.PodSandboxConfig) {
	t.Helper()
	d.fill(t, d.dir(env))
	before := names(t, filepath.Join(env.RunRoot, "pods"))
	ctx := env.Context()
	_, err := env.Runtime.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: env.PodConfig("late")})
	wantExhausted(t, "RunPodSandbox", err)
	d.fill(t, d.dir(env))
	_, err = env.Runtime.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{
		PodSandboxId: pod, Config: env.ContainerConfig("late", "sleep 1000"), SandboxConfig: config,
	})
	wantExhausted(t, "CreateContainer", err)
	env.Eventually("what was refused to be gone", func() error {
		if now := names(t, filepath.Join(env.RunRoot, "pods")); len(now) != len(before) {
			return fmt.Errorf("there are %v instead of %v", now, before)
		}
		return nil
	})
}

func wantExhausted(t *testing.T, what string, err error) {
	t.Helper()
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("%s on a full disk: %v", what, err)
	} else {
		t.Logf("%s: %v", what, err)
	}
}

func wantCode(t *testing.T, what string, status *runtimeapi.ContainerStatus, code int32) {
	t.Helper()
	if status.ExitCode != code {
		t.Errorf("%s: exit code %d (%s: %s) instead of %d", what, status.ExitCode, status.Reason, status.Message, code)
	}
}

// fill fills a disk to the last byte or inode, and returns what to remove to
// empty it again.
func (d disk) fill(t *testing.T, dir string) (filler string) {
	t.Helper()
	filler = filepath.Join(dir, "filler")
	if err := os.MkdirAll(filler, 0o700); err != nil && !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	for {
		f, err := os.CreateTemp(filler, "")
		if errors.Is(err, unix.ENOSPC) {
			return filler
		}
		if err != nil {
			t.Fatal(err)
		}
		if !d.inodes {
			err = pour(f)
		}
		if err = errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		if !d.inodes {
			return filler
		}
	}
}

// pour writes until nothing more fits, in ever smaller pieces.
func pour(f *os.File) error {
	for size := 1 << 20; size > 0; size /= 2 {
		for {
			if _, err := f.Write(make([]byte, size)); errors.Is(err, unix.ENOSPC) {
				break
			} else if err != nil {
				return err
			}
		}
	}
	return f.Sync()
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

// signalInit sends a signal to a container's first process, past the daemon.
func signalInit(t *testing.T, container string, sig syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(initOf(t, container), sig); err != nil {
		t.Fatal(err)
	}
}
