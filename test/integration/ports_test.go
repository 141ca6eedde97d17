package integration

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/test/testenv"
)

func get(url string) (string, error) { return getWithin(url, 3*time.Second) }

func getWithin(url string, limit time.Duration) (string, error) {
	client := http.Client{Timeout: limit, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}

// TestPorts: nginx answers on the pod's address and on the host port; the host
// port is gone with the pod.
func TestPorts(t *testing.T) {
	each(t, func(t *testing.T, env *testenv.Env) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := l.Addr().(*net.TCPAddr).Port
		l.Close()

		env.Pull(testenv.Nginx)
		config := env.PodConfig("web")
		config.PortMappings = []*runtimeapi.PortMapping{{ContainerPort: 80, HostPort: int32(port)}}
		pod := env.RunPod(config)
		web := env.ContainerConfig("web", "")
		web.Command = nil
		web.Image = &runtimeapi.ImageSpec{Image: testenv.Nginx, UserSpecifiedImage: testenv.Nginx}
		env.Run(pod, web, config)

		ip := env.PodStatus(pod).Network.Ip
		for _, address := range []string{ip + ":80", fmt.Sprintf("127.0.0.1:%d", port)} {
			env.Eventually("nginx on "+address, func() error {
				body, err := get("http://" + address)
				if err == nil {
					wantContains(t, "page on "+address, body, "Welcome to nginx!")
				}
				return err
			})
		}
		env.RemovePod(pod)
		if _, err := get(fmt.Sprintf("http://127.0.0.1:%d", port)); err == nil {
			t.Error("the host port answers after the pod's end")
		}
	})
}

// TestPodNetwork: pods reach each other, and each has an address of its own.
func TestPodNetwork(t *testing.T) {
	each(t, func(t *testing.T, env *testenv.Env) {
		env.Pull(testenv.Busybox)
		one, _ := runIn(env, env.PodConfig("one"), "main")
		_, peer := runIn(env, env.PodConfig("two"), "main")
		ip := env.PodStatus(one).Network.Ip
		env.Exec(peer, "ping -c 1 -W 5 "+ip)
		wantContains(t, "loopback", env.Exec(peer, "ip addr show lo"), "127.0.0.1/8")
	})
}
