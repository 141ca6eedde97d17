// Package kubelet runs Kubernetes on gantryd: its own kubelet with static pods
// and without an API server (TestKubelet), and with a control plane (TestCluster).
package kubelet

import (
	"os"
	"testing"

	"github.com/gantry-cri/gantry/test/images"
	"github.com/gantry-cri/gantry/test/testenv"
)

var shared = &testenv.Images{Sets: []images.Set{images.Demo}}

func TestMain(m *testing.M) {
	if port := os.Getenv(healthVariable); port != "" {
		serveHealth(port)
		return
	}
	if testenv.Peer() {
		shared.Sets = append(shared.Sets, images.Critest) // for its pause image
	}
	os.Exit(testenv.Main(m, shared))
}

// TestKubelet: each of the tests has pods of its own on one kubelet.
func TestKubelet(t *testing.T) {
	for _, runtime := range testenv.Runtimes() {
		t.Run(runtime, func(t *testing.T) {
			n := start(t, runtime)
			t.Run("pods", func(t *testing.T) {
				for name, test := range map[string]func(*testing.T, *node){
					"InitContainers":   testInitContainers,
					"Sidecar":          testSidecar,
					"Containers":       testContainers,
					"HostPort":         testHostPort,
					"Volumes":          testVolumes,
					"Probes":           testProbes,
					"Liveness":         testLiveness,
					"GRPCProbe":        testGRPCProbe,
					"Limits":           testLimits,
					"QoS":              testQoS,
					"OOM":              testOOM,
					"CrashLoop":        testCrashLoop,
					"Job":              testJob,
					"PreStop":          testPreStop,
					"NodeNamespaces":   testNodeNamespaces,
					"SharedPID":        testSharedPID,
					"UserNamespace":    testUserNamespace,
					"Groups":           testGroups,
					"SecurityContext":  testSecurityContext,
					"Logs":             testLogs,
					"Rotation":         testRotation,
					"Exec":             testExec,
					"PortForward":      testPortForward,
					"Stats":            testStats,
					"MissingImage":     testMissingImage,
					"Removal":          testRemoval,
					"ContainerRemoved": testContainerKilledOutside,
				} {
					t.Run(name, func(t *testing.T) {
						t.Parallel()
						test(t, n)
					})
				}
			})
			t.Run("Restarts", func(t *testing.T) { testRestarts(t, n) })
		})
	}
}
