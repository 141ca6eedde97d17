package crash

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/test/testenv"
)

// TestReboot: after a reboot that the run root has outlived, what it says is
// believed in nothing: its pods are gone, the process that has one of its PIDs
// now is left alone, and the addresses of its pods are given back. Images stay.
func TestReboot(t *testing.T) {
	each(t, func(t *testing.T, env *testenv.Env) {
		image := env.Pull(testenv.Busybox)
		config := env.PodConfig("pod")
		pod := env.RunPod(config)
		env.Run(pod, env.ContainerConfig("main", "sleep 1000"), config)
		env.Create(pod, env.ContainerConfig("created", "sleep 1000"), config)
		env.RunPod(env.PodConfig("other"))

		env.Kill9()
		innocent := exec.Command("sleep", "1000")
		if err := innocent.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = innocent.Wait() }() // it is killed
		defer func() {
			if err := innocent.Process.Kill(); err != nil {
				t.Errorf("the process that has a stale PID was ended: %v", err)
			}
		}()
		powerOff(t, env)
		givePIDs(t, env.RunRoot, innocent.Process.Pid)
		if err := os.WriteFile(filepath.Join(env.RunRoot, "boot_id"), []byte("00000000-0000-0000-0000-000000000000\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		env.StartDaemon()

		wantCounts(t, env, 0, 0)
		env.Eventually("the addresses to be given back", func() error {
			if left := leases(t, env); len(left) > 0 {
				return fmt.Errorf("left: %v", left)
			}
			return nil
		})
		resp, err := env.Images.ImageStatus(env.Context(), &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: testenv.Busybox}})
		if err != nil || resp.Image == nil || resp.Image.Id != image && !slices.Contains(resp.Image.RepoDigests, image) {
			t.Errorf("the image %s: %v, %v", image, resp, err)
		}
		env.CheckLeaks()
		again := env.RunPod(config)
		if again == pod {
			t.Error("the pod of the earlier boot is back")
		}
		ctr := env.Run(again, env.ContainerConfig("main", "sleep 1000"), config)
		if got := env.Exec(ctr, "echo yes"); got != "yes\n" {
			t.Errorf("the container says %q", got)
		}
	})
}

// powerOff ends all that a reboot ends: the processes of pods, their cgroups,
// and mounts.
func powerOff(t *testing.T, env *testenv.Env) {
	t.Helper()
	env.Eventually("the processes to be gone", func() error {
		pids := processesIn(t, env.CgroupParent)
		for _, pid := range pids {
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
				t.Fatal(err)
			}
		}
		if len(pids) > 0 {
			return fmt.Errorf("there are %v", pids)
		}
		return nil
	})
	mounts, err := filepath.Glob(filepath.Join(env.RunRoot, "pods/*/netns"))
	if err != nil {
		t.Fatal(err)
	}
	for _, mount := range mounts {
		if err := unix.Unmount(mount, unix.MNT_DETACH); err != nil {
			t.Fatal(err)
		}
	}
	env.RemoveCgroup(env.CgroupParent)
}

// givePIDs makes a process of every PID that is recorded below a directory.
func givePIDs(t *testing.T, dir string, pid int) {
	t.Helper()
	given := 0
	err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		switch {
		case entry.Name() == "pid":
			given++
			return os.WriteFile(path, []byte(fmt.Sprint(pid)), 0o600)
		case strings.HasSuffix(path, ".json"), entry.Name() == "status":
			var record any
			body, err := os.ReadFile(path)
			if err != nil || json.Unmarshal(body, &record) != nil {
				return err
			}
			given += replacePIDs(record, pid)
			if body, err = json.Marshal(record); err != nil {
				return err
			}
			return os.WriteFile(path, body, 0o600)
		}
		return nil
	})
	if err != nil || given < 8 { // of two pods and two containers, ours and the runtime's
		t.Fatalf("%d PIDs replaced: %v", given, err)
	}
}

// replacePIDs replaces every number under a name that ends in pid.
func replacePIDs(record any, pid int) (replaced int) {
	switch v := record.(type) {
	case map[string]any:
		for name, value := range v {
			if _, number := value.(float64); number && strings.HasSuffix(strings.ToLower(name), "pid") {
				v[name] = pid
				replaced++
				continue
			}
			replaced += replacePIDs(value, pid)
		}
	case []any:
		for _, value := range v {
			replaced += replacePIDs(value, pid)
		}
	}
	return replaced
}
