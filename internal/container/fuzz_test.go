package container

import (
	"encoding/json"
	"testing"

	imgspec "github.com/opencontainers/image-spec/specs-go/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// FuzzImageConfig: whatever an image says of its stop signal, there is one that
// the kernel knows, or the image is refused.
func FuzzImageConfig(f *testing.F) {
	for _, signal := range []string{"", "SIGTERM", "9", "SIGRTMIN+3", "sigrtmax-14", "SIGRTMIN+99999999999999999999", "-1"} {
		body, err := json.Marshal(imgspec.Image{Config: imgspec.ImageConfig{StopSignal: signal}})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var img imgspec.Image
		if json.Unmarshal(body, &img) != nil {
			return
		}
		sig, err := stopSignal(runtimeapi.Signal_SIGNAL_RUNTIME_DEFAULT, &img)
		if err == nil && (sig <= 0 || sig > sigRTMax) {
			t.Errorf("stop signal %q is %d", img.Config.StopSignal, sig)
		}
	})
}
