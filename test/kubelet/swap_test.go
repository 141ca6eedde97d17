package kubelet

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/gantry-cri/gantry/test/testenv"
)

// TestSwap: on a node with swap (cgroup v2 only) a burstable container gets
// its share, can use it, and its use is told; the others get none.
func TestSwap(t *testing.T) {
	if onCgroupV1() {
		t.Skip("the kubelet limits swap on cgroup v2 only: make test-vm WHAT=./test/kubelet:TestSwap")
	}
	for _, runtime := range testenv.Runtimes() {
		t.Run(runtime, func(t *testing.T) {
			n := newNode(t, runtime, nodeName, nil)
			n.swap = "LimitedSwap"
			swapOn(t, n.path("swap"), 2<<30)
			n.start()

			const request = 30 << 20
			// More than its limit of memory: killed, if it could not swap.
			n.add(t, "swaps", `
  containers:
  - name: main
    image: busybox
    command: [sh, -c, 'dd if=/dev/zero of=/dev/shm/mem bs=1M count=40 2>/dev/null && echo written; exec sleep 1000']
    resources: {requests: {memory: `+strconv.Itoa(request)+`}, limits: {memory: 32Mi}}
`)
			n.add(t, "guaranteed", `
  containers:
  - {name: main, image: busybox, command: [sleep, '1000'], resources: {limits: {cpu: 100m, memory: 32Mi}}}
`)
			n.add(t, "besteffort", `
  containers:
  - {name: main, image: busybox, command: [sleep, '1000']}
`)
			share := float64(request) / float64(meminfo(t, "MemTotal")) * float64(meminfo(t, "SwapTotal"))
			for name, want := range map[string]float64{"swaps": share, "guaranteed": 0, "besteffort": 0} {
				p := n.untilReady(t, name)
				if got := number(t, cgroupFile(t, n, p, p.container("main").ContainerID, "", "", "memory.swap.max")); got > want || got < want-8192 { // whole pages
					t.Errorf("%s: memory.swap.max is %v, not %v", name, got, want)
				}
			}
			n.untilLog(t, "swaps", "main", "written")
			p := n.untilReady(t, "swaps")
			if c := p.container("main"); c.RestartCount != 0 {
				t.Errorf("it was restarted: %+v", c)
			}
			used := number(t, cgroupFile(t, n, p, p.container("main").ContainerID, "", "", "memory.swap.current"))
			if used < 8<<20 {
				t.Errorf("%v bytes are swapped out", used)
			}
			n.wait(t, "the use of swap to be told", func() error { return n.tellsSwap("swaps", share) })
		})
	}
}

// tellsSwap returns an error unless the kubelet's summary has a pod's use of swap.
func (n *node) tellsSwap(name string, limit float64) error {
	p, err := n.summary(name)
	if err != nil {
		return err
	}
	c := p.Containers[0].Swap
	if sum := float64(c.SwapUsageBytes + c.SwapAvailableBytes); c.SwapUsageBytes < 8<<20 || sum > limit || sum < limit-8192 || p.Swap.SwapUsageBytes < 8<<20 {
		return fmt.Errorf("it is %+v", p)
	}
	return nil
}

// swapOn gives the machine swap of size bytes until the test has ended.
func swapOn(t *testing.T, file string, size int) {
	t.Helper()
	command(t, "fallocate", "-l", strconv.Itoa(size), file)
	must(t, os.Chmod(file, 0o600))
	command(t, "mkswap", file)
	command(t, "swapon", file)
	t.Cleanup(func() { command(t, "swapoff", file) })
}

// meminfo reads a line of /proc/meminfo, in bytes.
func meminfo(t *testing.T, name string) int {
	t.Helper()
	data, err := os.ReadFile("/proc/meminfo")
	must(t, err)
	for line := range strings.Lines(string(data)) {
		var kib int
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			_, err := fmt.Sscan(rest, &kib)
			must(t, err)
			return kib << 10
		}
	}
	t.Fatalf("/proc/meminfo has no %s", name)
	return 0
}

func number(t *testing.T, text string) float64 {
	t.Helper()
	n, err := strconv.ParseFloat(text, 64)
	if err != nil {
		t.Errorf("%q is no number", text)
	}
	return n
}
