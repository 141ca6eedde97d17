package integration

import (
	"fmt"
	"net/http"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/test/testenv"
)

// TestDaemonMetrics: what Prometheus is told of the daemon follows what happens,
// on the control socket and on the address that the configuration names.
func TestDaemonMetrics(t *testing.T) {
	t.Parallel()
	notForPeers(t)
	address := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	config := fmt.Sprintf("metrics_listen = %q", address)
	env := testenv.Start(t, testenv.Options{Registry: shared.Registry(t), Config: config})
	// Whoever has the address, a second daemon does without.
	testenv.Start(t, testenv.Options{Config: config}).Metric("gantry_problems")
	env.Pull(testenv.Busybox)
	podConfig := env.PodConfig("pod")
	pod := env.RunPod(podConfig)
	ctr := env.Run(pod, env.ContainerConfig("main", "sleep 1000"), podConfig)
	env.Create(pod, env.ContainerConfig("second", "true"), podConfig)
	for name, want := range map[string]float64{
		`gantry_pods{state="ready"}`: 1, `gantry_pods{state="broken"}`: 0, `gantry_containers{state="running"}`: 1, `gantry_containers{state="created"}`: 1,
		`gantry_images`: 1, `gantry_image_pulls`: 0, `gantry_damaged_records`: 0, `gantry_problems`: 0,
		`gantry_rpc_duration_seconds_count{code="OK",rpc="CreateContainer"}`: 2,
	} {
		wantEqual(t, name, env.Metric(name), want)
	}
	env.Stop(ctr, 0)
	_, err := env.Runtime.StartContainer(env.Context(), &runtimeapi.StartContainerRequest{ContainerId: ctr})
	if err == nil {
		t.Error("a container that has ended was started")
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + address + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := testenv.FindMetric(resp, `gantry_containers{state="exited"}`)
	if err != nil || got != 1 {
		t.Errorf("exited containers: %v, %v", got, err)
	}
}
