package integration

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gantry-cri/gantry/internal/control"
	"github.com/gantry-cri/gantry/test/testenv"
)

// gantryd runs a command of the daemon's program as an operator would, and
// returns what it prints and how it ends.
func gantryd(t *testing.T, env *testenv.Env, command ...string) (out string, code int) {
	t.Helper()
	cmd := exec.CommandContext(env.Context(), testenv.Binary(t, "gantryd"), append(command, env.Args()...)...)
	text, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("gantryd %s: %v", strings.Join(command, " "), err)
	}
	return string(text), cmd.ProcessState.ExitCode()
}

func mustGantryd(t *testing.T, env *testenv.Env, command ...string) string {
	t.Helper()
	out, code := gantryd(t, env, command...)
	if code != 0 {
		t.Fatalf("gantryd %s: exit code %d: %s", strings.Join(command, " "), code, out)
	}
	return out
}

// TestImagesCommand: an operator pulls, lists, inspects, verifies and prunes.
func TestImagesCommand(t *testing.T) {
	each(t, func(t *testing.T, env *testenv.Env) {
		notForPeers(t)
		id := strings.TrimSpace(mustGantryd(t, env, "images", "pull", "busybox"))
		wantEqual(t, "the id of a pull", imageStatus(t, env, testenv.Busybox).GetId(), lastLine(id))
		mustGantryd(t, env, "images", "pull", testenv.Nginx)

		list := mustGantryd(t, env, "images")
		for _, want := range []string{testenv.Busybox, testenv.Nginx, strings.TrimPrefix(lastLine(id), "sha256:")[:12]} {
			if !strings.Contains(list, want) {
				t.Errorf("the list has no %s:\n%s", want, list)
			}
		}
		var found control.Inspection
		if err := json.Unmarshal([]byte(mustGantryd(t, env, "images", "inspect", "busybox")), &found); err != nil {
			t.Fatal(err)
		}
		if found.ID != lastLine(id) || !strings.Contains(string(found.Info), `"diffID"`) {
			t.Errorf("inspected: %+v", found)
		}
		pod := env.RunPod(env.PodConfig("user"))
		env.Run(pod, env.ContainerConfig("main", "sleep 1000"), env.PodConfig("user"))

		verifyDamaged(t, env)

		out := mustGantryd(t, env, "images", "prune")
		if !strings.Contains(out, testenv.Nginx) || strings.Contains(out, testenv.Busybox) {
			t.Errorf("prune with a container of busybox: %s", out)
		}
		if imageStatus(t, env, testenv.Nginx) != nil || imageStatus(t, env, testenv.Busybox) == nil {
			t.Error("pruned is not what was said")
		}
		for _, command := range [][]string{{"inspect", "nope"}, {"verify", "nope"}, {"pull", env.Registry() + "/nope:1"}, {"pull", "UPPER"}} {
			if out, code := gantryd(t, env, append([]string{"images"}, command...)...); code != 1 || len(out) < 20 {
				t.Errorf("gantryd images %s: exit code %d, %q", strings.Join(command, " "), code, out)
			}
		}
	})
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

// verifyDamaged takes a file out of nginx's layer: verify finds it, a pull heals it.
func verifyDamaged(t *testing.T, env *testenv.Env) {
	t.Helper()
	if out := mustGantryd(t, env, "images", "verify"); strings.Count(out, "ok  ") != 2 {
		t.Errorf("verify: %s", out)
	}
	pages, err := filepath.Glob(filepath.Join(env.Root, "storage/overlay/*/diff/usr/sbin/nginx"))
	if err != nil || len(pages) == 0 {
		t.Fatalf("nginx's program is nowhere: %v", err)
	}
	if err := os.Remove(pages[0]); err != nil {
		t.Fatal(err)
	}
	if out, code := gantryd(t, env, "images", "verify", testenv.Nginx); code != 1 || !strings.Contains(out, "damaged") {
		t.Errorf("verify of a damaged image: exit code %d, %s", code, out)
	}
	mustGantryd(t, env, "images", "pull", testenv.Nginx)
	mustGantryd(t, env, "images", "verify", testenv.Nginx)
}

// TestImagesCommandWithoutDaemon: the error says what is missing.
func TestImagesCommandWithoutDaemon(t *testing.T) {
	each(t, func(t *testing.T, env *testenv.Env) {
		notForPeers(t)
		env.StopDaemon()
		if out, code := gantryd(t, env, "images"); code != 1 || !strings.Contains(out, "no daemon answers") {
			t.Errorf("exit code %d, %s", code, out)
		}
		env.StartDaemon()
	})
}
