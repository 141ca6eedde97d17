package kubelet

import (
	"bufio"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
)

// testLogs: the kubelet serves both streams, the tail, and what comes.
func testLogs(t *testing.T, n *node) {
	n.add(t, "logs", `
  containers: [{name: main, image: busybox, command: [sh, -c, 'echo out; echo err >&2; i=0; while true; do sleep 0.2; i=$((i+1)); echo line $i; done']}]
`)
	n.untilReady(t, "logs")
	n.untilLog(t, "logs", "main", "line 2\n")
	got, err := n.log("logs", "main", "")
	must(t, err)
	for _, line := range []string{"out\n", "err\n", "line 1\nline 2\n"} {
		if !strings.Contains(got, line) {
			t.Errorf("%q is not in %q", line, got)
		}
	}
	tail, err := n.log("logs", "main", "tailLines=1&timestamps=true")
	must(t, err)
	if strings.Count(tail, "\n") != 1 || !strings.Contains(tail, "T") || !strings.Contains(tail, "Z line ") {
		t.Errorf("the tail is %q", tail)
	}
	resp, err := n.http.Get(fmt.Sprintf("https://127.0.0.1:%d/containerLogs/default/logs-%s/main?follow=true", n.port, nodeName))
	must(t, err)
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("follow: %s", resp.Status)
	}
	lines := bufio.NewScanner(resp.Body)
	for seen := ""; !strings.Contains(seen, "line 8\n"); seen += lines.Text() + "\n" {
		if !lines.Scan() {
			t.Fatalf("the stream ended after %q: %v", seen, lines.Err())
		}
	}
}

// testRotation: the kubelet moves a log that has grown, and Gantry goes on in a
// new file; what is old is compressed and at last removed.
func testRotation(t *testing.T, n *node) {
	n.add(t, "wordy", `
  containers: [{name: main, image: busybox, command: [sh, -c, 'i=0; while true; do i=$((i+1)); echo "line $i of a container that has much to say"; [ $((i % 200)) != 0 ] || sleep 0.2; done']}]
`)
	n.untilReady(t, "wordy")
	n.wait(t, "rotated logs", func() error {
		files, err := filepath.Glob(n.path("logs/default_wordy-*/main/0.log*"))
		if err != nil {
			return err
		}
		if len(files) < 3 || !strings.HasSuffix(strings.Join(files, " "), ".gz") && !strings.Contains(strings.Join(files, " "), ".gz ") {
			return fmt.Errorf("the files are %v", files)
		}
		return nil
	})
	var lines []string
	n.wait(t, "lines in the new file", func() error {
		got, err := n.log("wordy", "main", "tailLines=2000")
		if lines = strings.Split(strings.TrimSpace(got), "\n"); err == nil && len(lines) < 10 {
			err = fmt.Errorf("it holds %q", got)
		}
		return err
	})
	var first int
	if _, err := fmt.Sscanf(lines[0], "line %d of", &first); err != nil {
		t.Fatalf("%q: %v", lines[0], err)
	}
	for i, line := range lines {
		if want := fmt.Sprintf("line %d of a container that has much to say", first+i); line != want {
			t.Fatalf("got %q, want %q", line, want)
		}
	}
}
