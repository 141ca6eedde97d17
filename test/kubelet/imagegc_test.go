package kubelet

import (
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/test/testenv"
)

// TestImageGC: the kubelet has an image removed that nothing uses, and leaves
// those that something does. It looks every five minutes.
func TestImageGC(t *testing.T) {
	n := start(t, testenv.Runtimes()[0])
	n.add(t, "user", `
  containers: [{name: main, image: busybox, command: [sleep, '1000']}]
`)
	n.untilReady(t, "user")
	n.env.Pull(testenv.Nginx)
	deadline := time.Now().Add(7 * time.Minute)
	for n.stored(testenv.Nginx) {
		if time.Now().After(deadline) {
			t.Fatal("the image that nothing uses is still there")
		}
		time.Sleep(time.Second)
	}
	if !n.stored(testenv.Busybox) {
		t.Error("the image that a pod uses is gone")
	}
	if got := n.exec(t, "user", "main", "echo yes"); got != "yes\n" {
		t.Errorf("its container says %q", got)
	}
}

func (n *node) stored(image string) bool {
	n.t.Helper()
	resp, err := n.env.Images.ImageStatus(n.env.Context(), &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: image}})
	must(n.t, err)
	return resp.Image != nil
}
