package kubelet

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/test/testenv"
)

// A podSummary is what the tests read of a pod in the kubelet's summary.
type podSummary struct {
	PodRef struct{ Name string }
	CPU    struct{ UsageNanoCores, UsageCoreNanoSeconds uint64 }
	Memory struct{ WorkingSetBytes, RSSBytes uint64 }

	Network struct{ RxBytes, TxBytes uint64 }

	ProcessStats struct {
		ProcessCount uint64 `json:"process_count"`
	} `json:"process_stats"`
	Containers []struct {
		Name   string
		CPU    struct{ UsageCoreNanoSeconds uint64 }
		Memory struct{ WorkingSetBytes uint64 }
		Swap   struct{ SwapUsageBytes, SwapAvailableBytes uint64 }
		Rootfs struct{ UsedBytes uint64 }
		Logs   struct{ UsedBytes uint64 }
	}
}

// summary asks the kubelet for that of a pod with one container.
func (n *node) summary(name string) (*podSummary, error) {
	body, err := n.get("/stats/summary")
	if err != nil {
		return nil, err
	}
	var s struct{ Pods []podSummary }
	if err := json.Unmarshal([]byte(body), &s); err != nil {
		return nil, err
	}
	for i, p := range s.Pods {
		if p.PodRef.Name == name+"-"+nodeName && len(p.Containers) == 1 {
			return &s.Pods[i], nil
		}
	}
	return nil, fmt.Errorf("the pod is not in %s", body)
}

// testStats: the kubelet's summary and cAdvisor's metrics, of what Gantry tells.
func testStats(t *testing.T, n *node) {
	n.add(t, "busy", `
  containers:
  - name: main
    image: busybox
    command: [sh, -c, 'dd if=/dev/zero of=/big bs=1M count=8 2>/dev/null; dd if=/dev/zero of=/dev/shm/mem bs=1M count=8 2>/dev/null; echo written; while true; do :; done']
    resources: {limits: {cpu: 200m, memory: 64Mi}}
`)
	n.untilReady(t, "busy")
	n.untilLog(t, "busy", "main", "written")
	n.wait(t, "the pod's stats", func() error {
		p, err := n.summary("busy")
		if err != nil {
			return err
		}
		c := p.Containers[0]
		if p.CPU.UsageNanoCores < 50e6 || p.CPU.UsageNanoCores > 400e6 || p.CPU.UsageCoreNanoSeconds < c.CPU.UsageCoreNanoSeconds ||
			p.Memory.WorkingSetBytes < 8<<20 || p.Memory.WorkingSetBytes > 80<<20 || p.ProcessStats.ProcessCount < 1 ||
			c.Rootfs.UsedBytes < 8<<20 || c.Logs.UsedBytes == 0 || c.Memory.WorkingSetBytes < 8<<20 {
			return fmt.Errorf("they are %+v", p)
		}
		return nil
	})
	last := 0.0
	n.wait(t, "the container's metrics", func() error {
		body, err := n.get("/metrics/cadvisor")
		if err != nil {
			return err
		}
		for name, bounds := range map[string][2]float64{
			"container_cpu_usage_seconds_total":  {last + 0.01, 1000},
			"container_memory_working_set_bytes": {8 << 20, 64 << 20},
			"container_memory_usage_bytes":       {8 << 20, 64 << 20},
			"container_fs_usage_bytes":           {8 << 20, 64 << 20},
			"container_processes":                {1, 2},
			"container_threads":                  {1, 2},
			"container_spec_memory_limit_bytes":  {64 << 20, 64 << 20},
			"container_spec_cpu_quota":           {20000, 20000},
			"container_start_time_seconds":       {1.7e9, float64(time.Now().Unix() + 1)},
		} {
			got, ok := metric(body, name, `container="main"`, `pod="busy-`+nodeName+`"`)
			if !ok || got < bounds[0] || got > bounds[1] {
				return fmt.Errorf("%s is %v, %t, of %d bytes", name, got, ok, len(body))
			}
			if name == "container_cpu_usage_seconds_total" && last == 0 {
				last = got
				return fmt.Errorf("it has used %v seconds; does it use more?", got)
			}
		}
		return nil
	})
}

// metric finds a sample of a metric with labels in the text for Prometheus.
func metric(body, name string, labels ...string) (value float64, ok bool) {
	for line := range strings.Lines(body) {
		if !strings.HasPrefix(line, name+"{") || slices.ContainsFunc(labels, func(l string) bool { return !strings.Contains(line, l) }) {
			continue
		}
		_, rest, _ := strings.Cut(line, "} ")
		if _, err := fmt.Sscan(rest, &value); err == nil {
			return value, true
		}
	}
	return 0, false
}

func onCgroupV1() bool {
	return !testenv.CgroupV2()
}

// cgroupsOf lists the cgroups of a pod.
func (n *node) cgroupsOf(uid string) []string {
	var found []string
	inSlice := strings.ReplaceAll(uid, "-", "_") // systemd takes a dash for a level
	roots, _ := filepath.Glob("/sys/fs/cgroup/*" + n.cgroup)
	for _, root := range append(roots, "/sys/fs/cgroup"+n.cgroup) {
		_ = filepath.WalkDir(root, func(path string, entry os.DirEntry, err error) error {
			if err == nil && entry.IsDir() && (strings.Contains(entry.Name(), uid) || strings.Contains(entry.Name(), inSlice)) {
				found = append(found, path)
			}
			return nil
		})
	}
	return found
}

// cgroupFile reads a file of a container's cgroup, by its name of version 1 or 2.
// container is its id, or that with the runtime's name before it as pods have it.
func cgroupFile(t *testing.T, n *node, p *pod, container, controller, v1, v2 string) string {
	t.Helper()
	container = container[strings.LastIndex(container, "/")+1:]
	for _, dir := range n.cgroupsOf(p.Metadata.UID) {
		child := container
		if n.env.CgroupManager == testenv.Systemd {
			child = "gantry-" + container + ".scope"
		}
		file := filepath.Join(dir, child, v2)
		if onCgroupV1() {
			if !strings.HasPrefix(dir, "/sys/fs/cgroup/"+controller+"/") {
				continue
			}
			file = filepath.Join(dir, container, v1)
		}
		if data, err := os.ReadFile(file); err == nil {
			return strings.TrimSpace(string(data))
		}
	}
	t.Errorf("container %s has no %s", container, v1)
	return ""
}

// noSandbox returns an error while the runtime has a sandbox of the pod, or of any
// if the name is empty; of ready ones only, if so asked.
func (n *node) noSandbox(name string, ready bool) error {
	list, err := n.env.Runtime.ListPodSandbox(n.env.Context(), &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		return err
	}
	for _, s := range list.GetItems() {
		if (name == "" || s.GetMetadata().GetName() == name) && (!ready || s.GetState() == runtimeapi.PodSandboxState_SANDBOX_READY) {
			return fmt.Errorf("sandbox %s is %s", s.GetId(), s.GetState())
		}
	}
	return nil
}

func wantFile(t *testing.T, file, want string) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil || string(data) != want {
		t.Errorf("%s: got %q, %v, want %q", file, data, err, want)
	}
}
