package main

import (
	"strings"
	"testing"
	"time"

	"github.com/gantry-cri/gantry/internal/control"
	"github.com/gantry-cri/gantry/internal/image"
)

func TestPrintStatus(t *testing.T) {
	now := time.Now()
	var out strings.Builder
	printStatus(&out, control.Status{
		Version: "1.2", Commit: "abc", PID: 7, Started: now.Add(-3 * time.Hour), Listen: "/run/x.sock", Streams: "127.0.0.1:1",
		Config: control.Configuration{Read: now.Add(-5 * time.Minute), NeedRestart: []string{"root", "listen"}},
		Pods:   map[string]int{"ready": 2, "broken": 0, "stopped": 1}, Containers: map[string]int{}, Images: 3, ImageBytes: 5e6,
		Pulls: []image.Progress{{Image: "busybox"}}, Calls: []control.Call{{RPC: "RunPodSandbox", Since: now.Add(-1500 * time.Millisecond)}},
		Problems: []string{"one"}, Goroutines: 9, RSS: 1 << 20, Files: 8,
	}, now)
	want := `gantryd     1.2 (abc), process 7, up 3 hours
listens     /run/x.sock; exec, attach and port-forward on 127.0.0.1:1
config      read 5 minutes ago; a restart is needed for root, listen
pods        1 stopped, 2 ready
containers  none
images      3, 5MB
uses        1MiB of memory, 8 files, 9 goroutines
pull        busybox
call        RunPodSandbox, for 1.5s
problem     one
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
	out.Reset()
	printStatus(&out, control.Status{Config: control.Configuration{Read: now.Add(-time.Hour)}}, now)
	if !strings.Contains(out.String(), "\nconfig      read about an hour ago\n") {
		t.Errorf("nothing needs a restart: %s", out.String())
	}
	if !strings.HasSuffix(out.String(), "problems    none\n") {
		t.Errorf("without a problem: %s", out.String())
	}
}
