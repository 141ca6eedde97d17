package integration

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/gantry-cri/gantry/test/images"
	"github.com/gantry-cri/gantry/test/testenv"
)

var shared = newShared()

func newShared() *testenv.Images {
	sets := []images.Set{images.Demo}
	if testenv.Peer() {
		sets = append(sets, images.Critest) // for its pause image
	}
	return &testenv.Images{Sets: sets}
}

func TestMain(m *testing.M) { os.Exit(testenv.Main(m, shared)) }

// each runs a test once for each runtime, in an environment of its own.
func each(t *testing.T, test func(t *testing.T, env *testenv.Env)) {
	eachWith(t, testenv.Options{}, test)
}

func eachWith(t *testing.T, o testenv.Options, test func(t *testing.T, env *testenv.Env)) {
	t.Helper()
	t.Parallel()
	eachRuntime(t, o, (*testing.T).Parallel, test)
}

// eachAlone is eachWith for tests that change what the others count on.
func eachAlone(t *testing.T, o testenv.Options, test func(t *testing.T, env *testenv.Env)) {
	t.Helper()
	eachRuntime(t, o, func(*testing.T) {}, test)
}

// eachRuntime calls before ahead of each daemon's start.
func eachRuntime(t *testing.T, o testenv.Options, before func(*testing.T), test func(t *testing.T, env *testenv.Env)) {
	t.Helper()
	if o.Registry == nil {
		o.Registry = shared.Registry(t)
	}
	for _, runtime := range testenv.Runtimes() {
		t.Run(runtime, func(t *testing.T) {
			before(t)
			o := o
			o.Runtime = runtime
			test(t, testenv.Start(t, o))
		})
	}
}

// wantCode fails the test unless err is a gRPC error with one of the codes.
func wantCode(t *testing.T, what string, err error, want ...codes.Code) {
	t.Helper()
	for _, code := range want {
		if status.Code(err) == code {
			if code != codes.OK && len(status.Convert(err).Message()) < 10 {
				t.Errorf("%s: %v says too little", what, err)
			}
			return
		}
	}
	t.Errorf("%s: got %v, want code %v", what, err, want)
}

func wantEqual[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// initPID finds a container's first process: of those in its cgroup the one
// that started first. A PID alone tells nothing about age: PIDs wrap around.
func initPID(t *testing.T, container string) int {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	first, oldest := 0, uint64(0)
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || !strings.Contains(readProc(t, pid, "cgroup"), container) {
			continue
		}
		started, parent := startOf(t, pid)
		if first == 0 || started < oldest || started == oldest && parent != first {
			first, oldest = pid, started
		}
	}
	if first == 0 {
		t.Fatalf("no process is in a cgroup of container %s", container)
	}
	return first
}

// startOf returns when a process started, in ticks since the boot, and its
// parent: https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html
func startOf(t *testing.T, pid int) (started uint64, parent int) {
	t.Helper()
	_, after, _ := strings.Cut(readProc(t, pid, "stat"), ") ")
	fields := strings.Fields(after)
	if len(fields) < 20 {
		return math.MaxUint64, 0 // it is gone
	}
	started, err := strconv.ParseUint(fields[19], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	parent, err = strconv.Atoi(fields[1])
	if err != nil {
		t.Fatal(err)
	}
	return started, parent
}

// readProc reads a file of /proc/PID; a process that is gone reads as "".
func readProc(t *testing.T, pid int, file string) string {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !strings.Contains(err.Error(), "no such process") {
		t.Fatal(err)
	}
	return string(data)
}

// cgroupFile reads a file of a process's cgroup: of the v1 controller, or of
// the v2 hierarchy under its v2 name.
func cgroupFile(t *testing.T, pid int, controller, v1, v2 string) string {
	t.Helper()
	for line := range strings.Lines(readProc(t, pid, "cgroup")) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		dir, name := "", ""
		for _, c := range strings.Split(parts[1], ",") {
			if c == controller {
				dir, name = "/sys/fs/cgroup/"+controller, v1
			}
		}
		if parts[1] == "" && dir == "" {
			dir, name = "/sys/fs/cgroup", v2
		}
		if data, err := os.ReadFile(filepath.Join(dir, parts[2], name)); dir != "" && err == nil {
			return strings.TrimSpace(string(data))
		}
	}
	t.Fatalf("process %d has no cgroup with %s or %s", pid, v1, v2)
	return ""
}

// prompt fails the test when what took longer than limit.
func prompt(t *testing.T, what string, limit time.Duration, run func()) {
	t.Helper()
	start := time.Now()
	run()
	if took := time.Since(start); took > limit {
		t.Errorf("%s took %s, more than %s", what, took.Round(time.Millisecond), limit)
	}
}

// script writes an executable shell script and returns its path.
func script(t *testing.T, dir, name, text string) string {
	t.Helper()
	file := filepath.Join(dir, name)
	if err := os.WriteFile(file, []byte("#!/bin/sh\n"+text), 0o755); err != nil {
		t.Fatal(err)
	}
	return file
}

func touch(t *testing.T, file string) {
	t.Helper()
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
}

func words(text string) []string { return strings.Fields(text) }
