package monitor

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// tools is what the tests of this package share: built once, read only.
type tools struct {
	dir, monitor, pause string
	layer               string // an image layer with busybox
}

var shared tools

func TestMain(m *testing.M) {
	if dir := os.Getenv(helperEnv); dir != "" {
		os.Exit(connectAndTell(dir))
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	flag.Parse()
	if flag.Lookup("test.fuzz").Value.String() != "" {
		return m.Run() // no target needs what follows, and each worker would make it
	}
	dir, err := os.MkdirTemp("", "montest-")
	if err != nil {
		return failed(err)
	}
	defer os.RemoveAll(dir)
	shared = tools{dir: dir, monitor: filepath.Join(dir, "gantry-monitor"), pause: filepath.Join(dir, "pause")}
	if err := errorsOf(
		func() error { return install("crun", "runc", "busybox-static") },
		buildMonitor,
		func() error { return buildC("pause", shared.pause) },
		makeLayer, mountHugetlb,
	); err != nil {
		return failed(err)
	}
	code := m.Run()
	if found, _ := filepath.Glob(report() + "*"); len(found) > 0 {
		body, err := os.ReadFile(found[0])
		return failed(errors.Join(fmt.Errorf("the sanitizers found:\n%s", body), err))
	}
	return code
}

// sanitizedEnv, when set, has the tests use a monitor with ASan and UBSan.
const sanitizedEnv = "GANTRY_SANITIZED_MONITOR"

// report is where such a monitor leaves its findings.
func report() string { return filepath.Join(shared.dir, "sanitizer") }

func buildMonitor() error {
	if os.Getenv(sanitizedEnv) != "" {
		return buildC("monitor", shared.monitor, "sanitized", "REPORT="+report())
	}
	return buildC("monitor", shared.monitor)
}

// connectAndTell is the helper of a test about who may connect.
func connectAndTell(dir string) int {
	_, err := Connect(context.Background(), dir, Handler{})
	switch {
	case err == nil:
		fmt.Println("accepted")
	case errors.Is(err, ErrDisconnected):
		fmt.Println("refused")
	default:
		fmt.Println(err)
	}
	return 0
}

func failed(err error) int {
	fmt.Fprintln(os.Stderr, err)
	return 1
}

func errorsOf(steps ...func() error) error {
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// install gets the Debian packages that are missing.
func install(packages ...string) error {
	programs := map[string]string{"busybox-static": "busybox"}
	for _, p := range packages {
		program := p
		if programs[p] != "" {
			program = programs[p]
		}
		if _, err := exec.LookPath(program); err == nil {
			continue
		}
		if out, err := exec.Command("apt-get", "install", "-y", p).CombinedOutput(); err != nil {
			return fmt.Errorf("install %s: %w: %s", p, err, out)
		}
	}
	return nil
}

func buildC(folder, out string, more ...string) error {
	args := append([]string{"-s", "-C", filepath.Join("..", "..", folder), "OUT=" + out}, more...)
	words, err := exec.Command("make", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("build %s: %w: %s", folder, err, words)
	}
	return nil
}

func makeLayer() error {
	shared.layer = filepath.Join(shared.dir, "layer")
	for _, d := range []string{"bin", "proc", "dev", "sys", "tmp", "shm"} {
		if err := os.MkdirAll(filepath.Join(shared.layer, d), 0o755); err != nil {
			return err
		}
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return err
	}
	return errorsOf(
		func() error { return copyFile(busybox, filepath.Join(shared.layer, "bin", "busybox")) },
		func() error { return copyFile(shared.pause, filepath.Join(shared.layer, "pause")) },
		func() error { return os.Symlink("busybox", filepath.Join(shared.layer, "bin", "sh")) },
	)
}

func copyFile(from, to string) error {
	body, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, body, 0o755)
}

// mountHugetlb takes the last controller away from cgroup2 on a hybrid node:
// old crun refuses to run while there is one.
func mountHugetlb() error {
	const dir = "/sys/fs/cgroup/hugetlb"
	var st unix.Statfs_t
	if unix.Statfs("/sys/fs/cgroup/memory", &st) != nil || unix.Statfs(dir, &st) == nil && st.Type == unix.CGROUP_SUPER_MAGIC {
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return unix.Mount("cgroup", dir, "cgroup", 0, "hugetlb")
}
