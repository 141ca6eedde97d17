package kubelet

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

type summary struct {
	Pods []struct {
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
			Rootfs struct{ UsedBytes uint64 }
			Logs   struct{ UsedBytes uint64 }
		}
	}
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
		body, err := n.get("/stats/summary")
		if err != nil {
			return err
		}
		var s summary
		if err := json.Unmarshal([]byte(body), &s); err != nil {
			return err
		}
		for _, p := range s.Pods {
			if p.PodRef.Name != "busy-"+nodeName || len(p.Containers) != 1 {
				continue
			}
			c := p.Containers[0]
			if p.CPU.UsageNanoCores < 50e6 || p.CPU.UsageNanoCores > 400e6 || p.CPU.UsageCoreNanoSeconds < c.CPU.UsageCoreNanoSeconds ||
				p.Memory.WorkingSetBytes < 8<<20 || p.Memory.WorkingSetBytes > 80<<20 || p.ProcessStats.ProcessCount < 1 ||
				c.Rootfs.UsedBytes < 8<<20 || c.Logs.UsedBytes == 0 || c.Memory.WorkingSetBytes < 8<<20 {
				return fmt.Errorf("they are %+v", p)
			}
			return nil
		}
		return fmt.Errorf("the pod is not in %s", body)
	})
	n.wait(t, "the pod's metrics", func() error {
		body, err := n.get("/metrics/cadvisor")
		if err != nil {
			return err
		}
		for _, name := range []string{"container_cpu_usage_seconds_total", "container_memory_working_set_bytes", "container_fs_usage_bytes", "container_processes", "container_spec_memory_limit_bytes"} {
			if !hasMetric(body, name, `pod="busy-`+nodeName+`"`) {
				return fmt.Errorf("%s of the pod is not among %d bytes", name, len(body))
			}
		}
		return nil
	})
}

func hasMetric(body, name, label string) bool {
	for line := range strings.Lines(body) {
		if strings.HasPrefix(line, name+"{") && strings.Contains(line, label) {
			return true
		}
	}
	return false
}

func onCgroupV1() bool {
	_, err := os.Stat("/sys/fs/cgroup/cgroup.controllers")
	return err != nil
}

// cgroupsOf lists the cgroups of a pod.
func (n *node) cgroupsOf(uid string) []string {
	var found []string
	roots, _ := filepath.Glob("/sys/fs/cgroup/*" + n.cgroup)
	for _, root := range append(roots, "/sys/fs/cgroup"+n.cgroup) {
		_ = filepath.WalkDir(root, func(path string, entry os.DirEntry, err error) error {
			if err == nil && entry.IsDir() && strings.Contains(entry.Name(), uid) {
				found = append(found, path)
			}
			return nil
		})
	}
	return found
}

// cgroupFile reads a file of a container's cgroup, by its name of version 1 or 2.
func cgroupFile(t *testing.T, n *node, p *pod, container, controller, v1, v2 string) string {
	t.Helper()
	for _, dir := range n.cgroupsOf(p.Metadata.UID) {
		file := filepath.Join(dir, container, v2)
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
