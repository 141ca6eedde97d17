package integration

import (
	"net"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/test/testenv"
)

// TestSystemdDoesNotAnswer: with systemd as the cgroup manager, and a bus on
// which nobody listens, or somebody who never answers, a pod fails in time and
// leaves nothing.
func TestSystemdDoesNotAnswer(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "bus")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	for bus, code := range map[string]codes.Code{socket: codes.DeadlineExceeded, socket + "-none": codes.Unavailable} {
		o := testenv.Options{
			Config:        "runtime_timeout = \"3s\"\n",
			CgroupManager: testenv.Systemd,
			Environ:       []string{"DBUS_SYSTEM_BUS_ADDRESS=unix:path=" + bus},
		}
		t.Run(code.String(), func(t *testing.T) {
			eachWith(t, o, func(t *testing.T, env *testenv.Env) {
				notForPeers(t)
				conf, err := env.Runtime.RuntimeConfig(env.Context(), &runtimeapi.RuntimeConfigRequest{})
				wantCode(t, "RuntimeConfig", err, codes.OK)
				wantEqual(t, "driver", conf.GetLinux().GetCgroupDriver(), runtimeapi.CgroupDriver_SYSTEMD)
				prompt(t, "a pod without systemd", 30*time.Second, func() {
					_, err := env.Runtime.RunPodSandbox(env.Context(), &runtimeapi.RunPodSandboxRequest{Config: env.PodConfig("pod")})
					wantCode(t, "a pod without systemd", err, code)
				})
				config := env.PodConfig("pod2")
				config.Linux.CgroupParent = "/kubepods/pod1"
				_, err = env.Runtime.RunPodSandbox(env.Context(), &runtimeapi.RunPodSandboxRequest{Config: config})
				wantCode(t, "a parent that is no slice", err, codes.InvalidArgument)
			})
		})
	}
}

// TestSliceForCgroupfs: a slice as the parent is a kubelet with another driver.
func TestSliceForCgroupfs(t *testing.T) {
	eachWith(t, testenv.Options{CgroupManager: testenv.Cgroupfs}, func(t *testing.T, env *testenv.Env) {
		notForPeers(t)
		conf, err := env.Runtime.RuntimeConfig(env.Context(), &runtimeapi.RuntimeConfigRequest{})
		wantCode(t, "RuntimeConfig", err, codes.OK)
		wantEqual(t, "driver", conf.GetLinux().GetCgroupDriver(), runtimeapi.CgroupDriver_CGROUPFS)
		config := env.PodConfig("pod")
		config.Linux.CgroupParent = "/kubepods.slice/kubepods-pod1.slice"
		_, err = env.Runtime.RunPodSandbox(env.Context(), &runtimeapi.RunPodSandboxRequest{Config: config})
		wantCode(t, "a slice", err, codes.InvalidArgument)
	})
}
