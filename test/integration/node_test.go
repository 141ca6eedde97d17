package integration

import (
	"errors"
	"testing"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/test/testenv"
)

func condition(t *testing.T, env *testenv.Env, name string) *runtimeapi.RuntimeCondition {
	t.Helper()
	resp, err := env.Runtime.Status(env.Context(), &runtimeapi.StatusRequest{Verbose: true})
	if err != nil {
		t.Fatalf("Status: %v", err)
	}
	for _, c := range resp.GetStatus().GetConditions() {
		if c.Type == name {
			return c
		}
	}
	t.Fatalf("Status has no condition %s: %v", name, resp)
	return nil
}

// TestNode: Version, Status, RuntimeConfig, UpdateRuntimeConfig.
func TestNode(t *testing.T) {
	each(t, func(t *testing.T, env *testenv.Env) {
		notForPeers(t)
		version, err := env.Runtime.Version(env.Context(), &runtimeapi.VersionRequest{})
		if err != nil {
			t.Fatal(err)
		}
		wantEqual(t, "runtime name", version.RuntimeName, "gantry")
		wantEqual(t, "API version", version.RuntimeApiVersion, "v1")
		for _, name := range []string{"RuntimeReady", "NetworkReady"} {
			if c := condition(t, env, name); !c.Status {
				t.Errorf("%s: %v", name, c)
			}
		}
		config, err := env.Runtime.RuntimeConfig(env.Context(), &runtimeapi.RuntimeConfigRequest{})
		wantCode(t, "RuntimeConfig", err, codes.OK)
		wantEqual(t, "cgroup driver", config.GetLinux().GetCgroupDriver(), runtimeapi.CgroupDriver_CGROUPFS)
		_, err = env.Runtime.UpdateRuntimeConfig(env.Context(), &runtimeapi.UpdateRuntimeConfigRequest{
			RuntimeConfig: &runtimeapi.RuntimeConfig{NetworkConfig: &runtimeapi.NetworkConfig{PodCidr: "10.9.0.0/16"}},
		})
		wantCode(t, "UpdateRuntimeConfig", err, codes.OK)
	})
}

// TestUnimplemented: an RPC that Gantry does not have says so.
func TestUnimplemented(t *testing.T) {
	each(t, func(t *testing.T, env *testenv.Env) {
		notForPeers(t)
		_, err := env.Runtime.CheckpointContainer(env.Context(), &runtimeapi.CheckpointContainerRequest{})
		wantCode(t, "CheckpointContainer", err, codes.Unimplemented)
	})
}

// TestNetworkReady: without a network the node says why, refuses pods that need
// one, runs pods that don't, and notices a network that appears.
func TestNetworkReady(t *testing.T) {
	eachWith(t, testenv.Options{NoNetwork: true}, func(t *testing.T, env *testenv.Env) {
		notForPeers(t)
		c := condition(t, env, "NetworkReady")
		wantEqual(t, "NetworkReady without a network", c.Status, false)
		wantContains(t, "why not", c.Message, env.CNIConfDir)
		_, err := env.Runtime.RunPodSandbox(env.Context(), &runtimeapi.RunPodSandboxRequest{Config: env.PodConfig("pod")})
		wantCode(t, "a pod without a network", err, codes.Unavailable)

		config := env.PodConfig("host")
		config.Linux.SecurityContext = &runtimeapi.LinuxSandboxSecurityContext{
			NamespaceOptions: &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE},
		}
		env.RunPod(config)

		if err := env.WriteNetwork(env.Network()); err != nil {
			t.Fatal(err)
		}
		env.Eventually("NetworkReady", func() error {
			if c := condition(t, env, "NetworkReady"); !c.Status {
				return errors.New(c.Message)
			}
			return nil
		})
		env.RunPod(env.PodConfig("pod"))
	})
}
