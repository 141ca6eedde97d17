package testenv

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// SwapOn gives the machine swap of size bytes, on a file, until the test has ended.
func SwapOn(t testing.TB, size int) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "swap")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(program string, args ...string) {
		t.Helper()
		if out, err := exec.Command(program, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", program, err, out)
		}
	}
	run("fallocate", "-l", strconv.Itoa(size), file)
	run("mkswap", file)
	run("swapon", file)
	t.Cleanup(func() { run("swapoff", file) })
}

// MemInfo reads a line of /proc/meminfo, in bytes.
func MemInfo(t testing.TB, name string) int {
	t.Helper()
	data, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		rest, ok := strings.CutPrefix(line, name+":")
		if !ok {
			continue
		}
		var kib int
		if _, err := fmt.Sscan(rest, &kib); err != nil {
			t.Fatalf("/proc/meminfo: %s: %v", line, err)
		}
		return kib << 10
	}
	t.Fatalf("/proc/meminfo has no %s", name)
	return 0
}
