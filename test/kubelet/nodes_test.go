package kubelet

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/test/testenv"
)

// TestNodes: pods on three nodes reach each other, and when one node is cut off
// its pods come up on the others, and go from it when it is back.
func TestNodes(t *testing.T) {
	c := startCluster(t, testenv.Runtimes()[0], 3)
	c.apply(t, `
apiVersion: apps/v1
kind: Deployment
metadata: {name: spread}
spec:
  replicas: 6
  selector: {matchLabels: {app: spread}}
  strategy: {type: Recreate}
  template:
    metadata: {labels: {app: spread}}
    spec:
      terminationGracePeriodSeconds: 1
      topologySpreadConstraints:
      - {maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway, labelSelector: {matchLabels: {app: spread}}}
      tolerations:
      - {key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 2}
      - {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 2}
      containers:
      - {name: web, image: nginx, imagePullPolicy: IfNotPresent, readinessProbe: {httpGet: {port: 80, path: /}, periodSeconds: 2, timeoutSeconds: 10}}
      - {name: client, image: busybox, imagePullPolicy: IfNotPresent, command: [sleep, infinity]}
---
apiVersion: v1
kind: Service
metadata: {name: spread}
spec: {selector: {app: spread}, ports: [{port: 80}]}
`)
	c.kubectl(t, "rollout", "status", "deployment/spread", "--timeout=170s")
	service := c.kubectl(t, "get", "service", "spread", "-o", "jsonpath={.spec.clusterIP}")
	pods := c.spread(t)
	perNode := map[string]int{}
	for _, p := range pods {
		perNode[p.node]++
	}
	if len(perNode) != 3 {
		t.Errorf("pods per node: %v", perNode)
	}
	c.reach(t, pods, service)

	lost := c.nodes[2]
	ip(t, "link", "set", lost.outer(), "down")
	c.wait(t, "the pods to run on the other nodes", func() error {
		healthy := 0
		for _, p := range c.spread(t) {
			if p.node != lost.name && p.ready {
				healthy++
			}
		}
		if healthy != 6 {
			return fmt.Errorf("%d of 6 are ready elsewhere", healthy)
		}
		return nil
	})
	var left []spreadPod
	for _, p := range c.spread(t) {
		if p.node != lost.name {
			left = append(left, p)
		}
	}
	c.reach(t, left, service)

	ip(t, "link", "set", lost.outer(), "up")
	c.wait(t, "the node to be back, and its pods of before to be gone", func() error {
		if err := c.try("wait", "--for=condition=Ready", "node/"+lost.name, "--timeout=5s"); err != nil {
			return err
		}
		list, err := lost.env.Runtime.ListPodSandbox(context.Background(), &runtimeapi.ListPodSandboxRequest{})
		if err != nil {
			return err
		}
		now := map[string]bool{}
		for _, p := range c.spread(t) {
			now[p.name] = true
		}
		for _, item := range list.Items {
			if !now[item.Metadata.Name] {
				return errors.New("there is still " + item.Metadata.Name)
			}
		}
		return nil
	})
	c.kubectl(t, "delete", "service", "spread")
}

type spreadPod struct {
	name, node, ip string
	ready          bool
}

// spread lists the pods of the deployment.
func (c *cluster) spread(t *testing.T) (pods []spreadPod) {
	t.Helper()
	out := c.kubectl(t, "get", "pods", "-l", "app=spread", "-o",
		`jsonpath={range .items[*]}{.metadata.name} {.spec.nodeName} {.status.podIP} {.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}`)
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		if len(f) == 4 {
			pods = append(pods, spreadPod{f[0], f[1], f[2], f[3] == "True"})
		}
	}
	return pods
}

// reach asks every pod and the Service from one pod of each node.
func (c *cluster) reach(t *testing.T, pods []spreadPod, service string) {
	t.Helper()
	addresses := service
	from := map[string]string{}
	for _, p := range pods {
		addresses += " " + p.ip
		from[p.node] = p.name
	}
	for node, name := range from {
		c.wait(t, "pods and the Service to be reached from "+node, func() error {
			return c.try("exec", name, "-c", "client", "--", "sh", "-c", "set -e; for a in "+addresses+"; do timeout 5 wget -q -O /dev/null http://$a/ || { echo $a >&2; exit 1; }; done")
		})
	}
}
