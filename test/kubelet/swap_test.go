package kubelet

import (
	"fmt"
	"strconv"
	"testing"

	"github.com/gantry-cri/gantry/test/testenv"
)

// TestSwap: on a node with swap (cgroup v2 only) a burstable container gets
// its share, can use it, and its use is told; the others get none, nor does a
// static pod, which the kubelet takes for a critical one.
func TestSwap(t *testing.T) {
	if onCgroupV1() {
		t.Skip("the kubelet limits swap on cgroup v2 only: make test-vm WHAT=./test/kubelet:TestSwap")
	}
	testenv.SwapOn(t, 2<<30)
	c := startCluster(t, testenv.Runtimes()[0], 1)
	const request = 30 << 20
	// More than its limit of memory: killed, if it could not swap.
	burstable := `
  containers:
  - name: main
    image: busybox
    imagePullPolicy: IfNotPresent
    command: [sh, -c, 'dd if=/dev/zero of=/dev/shm/mem bs=1M count=40 2>/dev/null && echo written; exec sleep 1000']
    resources: {requests: {memory: ` + strconv.Itoa(request) + `}, limits: {memory: 32Mi}}
`
	idle := func(resources string) string {
		return `
  containers:
  - {name: main, image: busybox, imagePullPolicy: IfNotPresent, command: [sleep, '1000'], resources: ` + resources + `}
`
	}
	c.run(t, "swaps", burstable)
	c.run(t, "guaranteed", idle("{limits: {cpu: 100m, memory: 32Mi}}"))
	c.run(t, "besteffort", idle("{}"))
	c.add(t, "static", idle("{requests: {memory: 30Mi}, limits: {memory: 32Mi}}"))
	share := float64(request) / float64(testenv.MemInfo(t, "MemTotal")) * float64(testenv.MemInfo(t, "SwapTotal"))
	for name, want := range map[string]float64{"swaps": share, "guaranteed": 0, "besteffort": 0, "static": 0} {
		p := c.untilReady(t, name)
		if got := number(t, cgroupFile(t, c.node, p, p.container("main").ContainerID, "", "", "memory.swap.max")); got > want || got < want-8192 { // whole pages
			t.Errorf("%s: memory.swap.max is %v, not %v", name, got, want)
		}
	}
	c.untilLog(t, "swaps", "main", "written")
	p := c.untilReady(t, "swaps")
	if state := p.container("main"); state.RestartCount != 0 {
		t.Errorf("it was restarted: %+v", state)
	}
	used := number(t, cgroupFile(t, c.node, p, p.container("main").ContainerID, "", "", "memory.swap.current"))
	if used < 8<<20 {
		t.Errorf("%v bytes are swapped out", used)
	}
	c.wait(t, "the use of swap to be told", func() error { return c.tellsSwap("swaps", share) })
}

// tellsSwap returns an error unless the kubelet's summary has the use of swap of a
// pod's container. For the pod itself the CRI has no field.
func (n *node) tellsSwap(name string, limit float64) error {
	p, err := n.summary(name)
	if err != nil {
		return err
	}
	c := p.Containers[0].Swap
	if sum := float64(c.SwapUsageBytes + c.SwapAvailableBytes); c.SwapUsageBytes < 8<<20 || sum > limit || sum < limit-8192 {
		return fmt.Errorf("it is %+v", p)
	}
	return nil
}

func number(t *testing.T, text string) float64 {
	t.Helper()
	n, err := strconv.ParseFloat(text, 64)
	if err != nil {
		t.Errorf("%q is no number", text)
	}
	return n
}
