//go:build foreground

package kubelet

import (
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"testing"

	"github.com/gantry-cri/gantry/test/testenv"
)

// TestForeground is make cluster: a cluster that lasts until it is interrupted.
// NODES says how many nodes it has, 1 if it is empty.
func TestForeground(t *testing.T) {
	nodes := 1
	if text := os.Getenv("NODES"); text != "" {
		var err error
		if nodes, err = strconv.Atoi(text); err != nil || nodes < 1 {
			t.Fatalf("NODES=%s is no number of nodes", text)
		}
	}
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM)
	c := startCluster(t, testenv.Runtimes()[0], nodes)
	fmt.Printf(`
Kubernetes runs on Gantry. In another terminal:

  export KUBECONFIG=%s
  %s get nodes
  %[2]s create deployment web --image=nginx --replicas=3

Images are those of the tests: busybox and nginx.`, c.kubeconfig(), testenv.Binary(t, "kubectl"))
	for _, n := range c.nodes {
		fmt.Printf("\n%s: bin/crictl -r unix://%s ps, bin/gantryd status --run-root %s", n.name, n.env.Socket, n.env.RunRoot)
	}
	fmt.Printf("\n\nCtrl-C ends the cluster and removes all of it.\n\n")
	<-interrupted
	fmt.Println("ending")
}
