package kubelet

import (
	"fmt"
	"net"
	"os"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// healthVariable makes this program a server of gRPC's health checks, in a
// container: the port.
const healthVariable = "GANTRY_TEST_HEALTH"

// serveHealth is well until there is a file /sick.
func serveHealth(port string) {
	l, err := net.Listen("tcp", ":"+port)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	state := health.NewServer()
	go func() {
		for ; ; time.Sleep(100 * time.Millisecond) {
			if _, err := os.Stat("/sick"); err == nil {
				state.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
			}
		}
	}()
	s := grpc.NewServer()
	healthpb.RegisterHealthServer(s, state)
	fmt.Fprintln(os.Stderr, s.Serve(l))
}

// testGRPCProbe: a server of gRPC's health checks is ready, and restarted when
// it says that it does not serve.
func testGRPCProbe(t *testing.T, n *node) {
	program, err := os.Executable()
	must(t, err)
	n.add(t, "grpc", `
  terminationGracePeriodSeconds: 1
  volumes: [{name: program, hostPath: {path: `+program+`, type: File}}]
  containers:
  - name: main
    image: busybox
    command: [/health-server]
    env: [{name: `+healthVariable+`, value: '4000'}]
    volumeMounts: [{name: program, mountPath: /health-server, readOnly: true}]
    startupProbe: {grpc: {port: 4000}, periodSeconds: 1, failureThreshold: 60}
    readinessProbe: {grpc: {port: 4000}, periodSeconds: 1, timeoutSeconds: 10}
    livenessProbe: {grpc: {port: 4000}, periodSeconds: 1, timeoutSeconds: 10, failureThreshold: 2}
`)
	n.untilReady(t, "grpc")
	n.exec(t, "grpc", "main", "touch /sick")
	n.until(t, "grpc", "restarted", restarted("main", "Error"))
	n.untilReady(t, "grpc")
}
