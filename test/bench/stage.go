package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-cri/gantry/internal/cgroup"
	"github.com/gantry-cri/gantry/internal/node"
	"github.com/gantry-cri/gantry/test/images"
	"github.com/gantry-cri/gantry/test/testenv"
)

// The program runs as three processes. The first, outside, prepares what needs
// the machine's network and cleans up at the end. The second is PID 1 of the
// benchmark's namespaces: it adopts what daemons leave behind, and its death
// ends everything. The third measures.
const (
	stageVariable = "GANTRY_BENCH_STAGE"
	dirVariable   = "GANTRY_BENCH_DIR"
	stageInit     = "init"
	stageRun      = "run"
)

// privateDirs are where containerd, its shims, libcni and iptables keep what
// can't be configured: they get an empty directory in the benchmark's namespace.
func privateDirs() []string {
	return []string{"/run/containerd", "/run/netns", "/var/lib/cni"}
}

// outside runs the benchmark in namespaces of its own, and removes every trace
// of it, also when ctx ends before.
func outside(ctx context.Context, p plan) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("root is needed: pods are made of namespaces, mounts and cgroups")
	}
	if err := buildImages(ctx); err != nil {
		return err
	}
	dir, err := makeDir()
	if err != nil {
		return err
	}
	made, err := makeMissing(privateDirs())
	defer func() { err = errors.Join(err, clean(dir, made)) }()
	if err != nil {
		return err
	}
	// The kernel sends the child's death signal when this thread ends, so it must not.
	runtime.LockOSThread()
	cmd := exec.CommandContext(ctx, "/proc/self/exe", os.Args[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), stageVariable+"="+stageInit, dirVariable+"="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET,
		Pdeathsig:  syscall.SIGKILL,
		Setpgid:    true,
	}
	err = cmd.Run()
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	if err != nil {
		return fmt.Errorf("the benchmark failed: %w", err)
	}
	return nil
}

// buildImages builds the images unless they are cached: only outside is there
// a network to get packages from.
func buildImages(ctx context.Context) error {
	root, err := testenv.Root()
	if err != nil {
		return err
	}
	_, err = images.Build(ctx, filepath.Join(root, ".cache", "images"), images.Demo)
	return err
}

// makeDir makes the benchmark's directory. Its name and two files let
// test/setup/sweep.sh clean up after a benchmark that was killed.
func makeDir() (string, error) {
	dir, err := os.MkdirTemp("", "gantry-env-")
	if err != nil {
		return "", err
	}
	name := "bench" + strings.TrimPrefix(filepath.Base(dir), "gantry-env-")
	return dir, errors.Join(
		os.Chmod(dir, 0o755),
		os.WriteFile(filepath.Join(dir, "owner"), []byte(strconv.Itoa(os.Getpid())), 0o644),
		os.WriteFile(filepath.Join(dir, "name"), []byte(name), 0o644))
}

// cgroupOf is the cgroup that everything of the benchmark in dir is below.
func cgroupOf(dir string) string {
	return "/gantry-test-bench" + strings.TrimPrefix(filepath.Base(dir), "gantry-env-")
}

// makeMissing makes the directories that do not exist and lists them.
func makeMissing(dirs []string) (made []string, err error) {
	for _, dir := range dirs {
		if _, err := os.Stat(dir); err == nil {
			continue
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return made, err
		}
		made = append(made, dir)
	}
	return made, nil
}

// clean removes what the namespaces' end leaves: cgroups and directories.
func clean(dir string, made []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	facts, err := node.Probe()
	if err == nil {
		err = cgroup.Remove(ctx, facts, cgroupOf(dir))
	}
	err = errors.Join(err, os.RemoveAll(dir))
	for _, empty := range made {
		failed := os.Remove(empty)
		if failed != nil && !errors.Is(failed, os.ErrNotExist) && !errors.Is(failed, unix.ENOTEMPTY) {
			err = errors.Join(err, fmt.Errorf("clean up: %w", failed))
		}
	}
	return err
}
