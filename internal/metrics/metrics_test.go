package metrics

import (
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestMetrics(t *testing.T) {
	m := New("1.2", "abc", func() Snapshot {
		return Snapshot{Pods: map[string]int{"ready": 2, "notready": 0}, Containers: map[string]int{"running": 3}, Images: 4, ImageBytes: 5, Pulls: 6, Damaged: 7, Problems: 8}
	})
	m.Begin("RunPodSandbox")("OK")
	end := m.Begin("RunPodSandbox")
	m.Begin("PullImage")
	if list := m.InFlight(); len(list) != 2 || list[0].RPC != "RunPodSandbox" || list[1].RPC != "PullImage" || time.Since(list[0].Since) > time.Minute {
		t.Errorf("in flight: %v", list)
	}
	end("Internal")
	if list := m.InFlight(); len(list) != 1 {
		t.Errorf("in flight: %v", list)
	}
	answer := httptest.NewRecorder()
	m.Handler().ServeHTTP(answer, httptest.NewRequest("GET", "/metrics", nil))
	for _, line := range []string{
		`gantry_build_info{commit="abc",version="1.2"} 1`,
		`gantry_pods{state="ready"} 2`, `gantry_pods{state="notready"} 0`, `gantry_containers{state="running"} 3`,
		`gantry_images 4`, `gantry_image_bytes 5`, `gantry_image_pulls 6`, `gantry_damaged_records 7`, `gantry_problems 8`,
		`gantry_rpc_duration_seconds_bucket{code="OK",rpc="RunPodSandbox",le="600"} 1`,
		`gantry_rpc_duration_seconds_count{code="Internal",rpc="RunPodSandbox"} 1`,
	} {
		if !strings.Contains(answer.Body.String(), line+"\n") {
			t.Errorf("%s is not told", line)
		}
	}
	if !strings.Contains(answer.Body.String(), "process_open_fds ") || !strings.Contains(answer.Body.String(), "go_goroutines ") {
		t.Error("nothing of the process is told")
	}
}
