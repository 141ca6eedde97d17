package monitor

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// minThroughput is far below what the monitor reaches, for busy test machines;
// the figure to hold is in the log.
const minThroughput = 60 // MiB/s

// TestLogThroughput measures 100-byte lines from a container to its log, and
// that none is lost.
func TestLogThroughput(t *testing.T) {
	if os.Getenv(sanitizedEnv) != "" {
		t.Skip("not a figure of the real monitor")
	}
	p := newPod(t, "crun")
	const chunk, copies = 64 << 20, 16
	b := p.bundle("/bin/sh", "-c", fmt.Sprintf("for i in $(/bin/busybox seq %d); do /bin/busybox cat /data/lines; done", copies))
	line := strings.Repeat("x", 99) + "\n"
	data := filepath.Join(b.dir, "upper", "data")
	if err := os.MkdirAll(data, 0o755); err != nil {
		t.Fatal(err)
	}
	lines := bytes.Repeat([]byte(line), chunk/len(line))
	if err := os.WriteFile(filepath.Join(data, "lines"), lines, 0o644); err != nil {
		t.Fatal(err)
	}
	logs, err := os.MkdirTemp("/dev/shm", "montest-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(logs)
	b.req.LogPath = filepath.Join(logs, "log")
	p.create(b)
	started := time.Now()
	p.start(b)
	p.wait(b)
	rate := float64(copies*len(lines)) / (1 << 20) / time.Since(started).Seconds()
	t.Logf("%.0f MiB/s of 100-byte lines", rate)
	info, err := os.Stat(b.req.LogPath)
	// A line that a read of the pipe cuts is whole in the log all the same.
	if want := int64(copies * (chunk / len(line)) * (len(line) + 40)); err != nil || info.Size() != want {
		t.Errorf("the log has %d bytes, want %d: %v", info.Size(), want, err)
	}
	if rate < minThroughput {
		t.Errorf("%.0f MiB/s, want at least %d", rate, minThroughput)
	}
}
