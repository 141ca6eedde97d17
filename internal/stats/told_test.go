package stats

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/internal/id"
)

// sandboxes makes pods of two containers each whose processes are in a sandbox:
// their cgroups are there, and empty. tell answers for all of them.
func sandboxes(t *testing.T, dir string, n int, tell func(context.Context, string) (Told, error)) []Pod {
	t.Helper()
	var pods []Pod
	for i := range n {
		name := fmt.Sprintf("p%d", i)
		pod := Pod{ID: id.Pod(name), Cgroup: "/" + name, Parts: []string{"/" + name + "/pause", "/" + name + "/monitor"},
			Attributes: &runtimeapi.PodSandboxAttributes{Id: name}}
		write(t, dir, map[string]string{name + "/cpu.stat": "usage_usec 9\n"})
		for _, ctr := range []string{"one", "two"} {
			c := testContainer()
			c.ID, c.Cgroup = id.Container(name+ctr), "/"+name+"/"+ctr
			c.Attributes = &runtimeapi.ContainerAttributes{Id: name + ctr}
			c.Tell = func(ctx context.Context) (Told, error) { return tell(ctx, name+ctr) }
			for file, text := range filesV2() {
				write(t, dir, map[string]string{name + "/" + ctr + strings.TrimPrefix(file, "p/c"): text})
			}
			pod.Containers = append(pod.Containers, c)
		}
		pods = append(pods, pod)
	}
	return pods
}

// sandboxCollector is one whose sampler runs while it is asked.
func sandboxCollector(t *testing.T, dir string, period time.Duration, pods *atomic.Pointer[[]Pod]) *Collector {
	c := New(Options{
		Node: factsV2(dir), Period: period, LayersDir: dir,
		Pods:  func() []Pod { return *pods.Load() },
		Layer: func(id.Container) (Layer, bool) { return Layer{Bytes: 4096, At: time.Unix(1, 0)}, true },
	})
	t.Cleanup(c.Close)
	return c
}

// eventually waits until done is so.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited too long for %s", what)
		}
	}
}

// TestTold: what a sandbox tells is a container's usage, as of when it was told;
// before that, and of what it does not tell, there is nothing.
func TestTold(t *testing.T) {
	dir := t.TempDir()
	var cpu atomic.Uint64
	cpu.Store(5e9)
	answer := make(chan struct{})
	list := sandboxes(t, dir, 1, func(ctx context.Context, name string) (Told, error) {
		select {
		case <-answer:
		case <-ctx.Done():
			return Told{}, ctx.Err()
		}
		if name == "p0two" {
			return Told{}, errors.New("it has just ended")
		}
		return Told{CPU: cpu.Load(), Memory: 12345, Threads: 6}, nil
	})
	var pods atomic.Pointer[[]Pod]
	pods.Store(&list)
	c := sandboxCollector(t, dir, 20*time.Millisecond, &pods)
	one := &list[0].Containers[0]
	stats := func() *runtimeapi.ContainerStats { return c.Containers(list[0].Containers)[0] }

	if st := stats(); st.Cpu != nil || st.Memory != nil || st.Swap != nil || st.Io != nil || st.WritableLayer.GetUsedBytes().GetValue() != 4096 {
		t.Errorf("before it was told: %v", st)
	}
	before := time.Now().UnixNano()
	close(answer)
	eventually(t, "an answer", func() bool { return stats().Cpu != nil })
	st := stats()
	equal(t, "CPU", st.Cpu.GetUsageCoreNanoSeconds().GetValue(), 5e9)
	equal(t, "memory", st.Memory.GetUsageBytes().GetValue(), 12345)
	equal(t, "working set", st.Memory.GetWorkingSetBytes().GetValue(), 12345)
	if m := st.Memory; m.RssBytes != nil || m.PageFaults != nil || m.MajorPageFaults != nil || m.AvailableBytes != nil || m.Psi != nil || st.Swap != nil || st.Io != nil {
		t.Errorf("what nobody told: %v", st)
	}
	if at := st.Cpu.Timestamp; at < before || at > time.Now().UnixNano() || st.Memory.Timestamp < before {
		t.Errorf("timestamps %d and %d, asked after %d", at, st.Memory.Timestamp, before)
	}
	if two := c.Containers(list[0].Containers)[1]; two.Cpu != nil || two.WritableLayer == nil {
		t.Errorf("one that is not told of: %v", two)
	}
	equal(t, "CPU in the pod's", c.Pod(&list[0]).Linux.Containers[0].Cpu.GetUsageCoreNanoSeconds().GetValue(), 5e9)

	cpu.Store(4e9) // an estimate that comes out lower
	later := stats().Cpu.Timestamp
	eventually(t, "another answer", func() bool { return stats().Cpu.Timestamp > later })
	equal(t, "a counter that can't go back", stats().Cpu.GetUsageCoreNanoSeconds().GetValue(), 5e9)
	cpu.Store(1e12)
	eventually(t, "a rate", func() bool { return stats().Cpu.GetUsageNanoCores().GetValue() > 0 })
	exited := *one
	exited.Exited = true
	if st := c.Container(&exited); st.Cpu != nil || st.WritableLayer == nil {
		t.Errorf("one that has exited: %v", st)
	}
}

// TestToldMetrics: of a container in a sandbox, metrics tell the usage, the
// limits and the writable layer, and nothing of what its cgroup counts.
func TestToldMetrics(t *testing.T) {
	dir := t.TempDir()
	list := sandboxes(t, dir, 1, func(context.Context, string) (Told, error) {
		return Told{CPU: 7e9, Memory: 12345, Threads: 6}, nil
	})
	list[0].Containers[0].PID = os.Getpid()
	var pods atomic.Pointer[[]Pod]
	pods.Store(&list)
	c := sandboxCollector(t, dir, 20*time.Millisecond, &pods)
	told := func() map[string]*runtimeapi.Metric {
		out := map[string]*runtimeapi.Metric{}
		for _, m := range decoded(t, c.Metrics(list))[0].ContainerMetrics[0].Metrics {
			out[m.Name] = m
		}
		return out
	}
	eventually(t, "a sample", func() bool {
		m := told()
		return m["container_threads"] != nil && m["container_spec_memory_limit_bytes"] != nil && m["container_fs_limit_bytes"] != nil
	})
	want := map[string]uint64{
		"container_cpu_usage_seconds_total": 7, "container_memory_usage_bytes": 12345, "container_memory_working_set_bytes": 12345,
		"container_threads": 6, "container_spec_memory_limit_bytes": 20000, "container_spec_cpu_quota": 50000, "container_start_time_seconds": 100,
	}
	others := []string{"container_last_seen", "container_threads_max"}
	got := told()
	for name, n := range want {
		equal(t, name, got[name].GetValue().GetValue(), n)
	}
	for _, name := range []string{"container_cpu_usage_seconds_total", "container_memory_usage_bytes", "container_threads"} {
		if got[name].GetTimestamp() == 0 {
			t.Errorf("%s without a timestamp", name)
		}
	}
	for _, name := range others {
		want[name] = 0
	}
	for name := range got {
		if _, ok := want[name]; !ok && !strings.HasPrefix(name, "container_spec_") && !strings.HasPrefix(name, "container_fs_") {
			t.Errorf("%s is told: %v", name, got[name])
		}
	}
	for _, name := range []string{"container_fs_reads_bytes_total", "container_fs_writes_total"} {
		if got[name] != nil {
			t.Errorf("%s is told", name)
		}
	}
}

// TestHungSandbox: one that does not answer delays neither a request nor another
// sandbox, is asked one thing at a time and then left alone, and its last answer
// stands.
func TestHungSandbox(t *testing.T) {
	dir := t.TempDir()
	var hang atomic.Bool
	var hung, underWay, most atomic.Int64
	list := sandboxes(t, dir, 8, func(ctx context.Context, name string) (Told, error) {
		now := underWay.Add(1)
		defer underWay.Add(-1)
		for seen := most.Load(); now > seen && !most.CompareAndSwap(seen, now); seen = most.Load() {
		}
		if hang.Load() && strings.HasPrefix(name, "p0") {
			hung.Add(1)
			<-ctx.Done()
			return Told{}, ctx.Err()
		}
		return Told{CPU: 1e9, Memory: 1}, nil
	})
	var pods atomic.Pointer[[]Pod]
	pods.Store(&list)
	c := sandboxCollector(t, dir, 20*time.Millisecond, &pods)
	c.asker.timeout, c.asker.pause = 100*time.Millisecond, time.Hour
	at := func(pod int) int64 { return c.Containers(list[pod].Containers)[1].GetCpu().GetTimestamp() }
	for pod := range list {
		eventually(t, "the first answers", func() bool { return at(pod) != 0 })
	}
	hang.Store(true)
	eventually(t, "a question without an answer", func() bool { at(0); return hung.Load() == 1 })
	for pod := 1; pod < len(list); pod++ {
		last := at(pod)
		eventually(t, "another answer", func() bool { return at(pod) > last })
	}
	sandbox := c.group(list[0].Parts[0])
	eventually(t, "the end of the question", func() bool {
		at(0)
		sandbox.mu.Lock()
		defer sandbox.mu.Unlock()
		return !sandbox.asking
	})
	last := at(1)
	eventually(t, "another round", func() bool { return at(1) > last })
	equal(t, "questions that had no answer", hung.Load(), 1)
	if most.Load() > askAtOnce {
		t.Errorf("%d questions at a time", most.Load())
	}
	if at(0) == 0 {
		t.Error("the last answer of the one that hangs is forgotten")
	}
}

// TestNoAnswerKept: answers for containers that are gone are forgotten, and
// nobody is asked while nobody wants to know, or once the collector is closed.
func TestNoAnswerKept(t *testing.T) {
	dir := t.TempDir()
	var asked atomic.Int64
	list := sandboxes(t, dir, 2, func(context.Context, string) (Told, error) {
		asked.Add(1)
		return Told{CPU: 1}, nil
	})
	var pods atomic.Pointer[[]Pod]
	pods.Store(&list)
	c := sandboxCollector(t, dir, 50*time.Millisecond, &pods)
	kept := func() int {
		c.mu.Lock()
		defer c.mu.Unlock()
		n := 0
		for _, g := range c.groups {
			if g.told.Load() != nil {
				n++
			}
		}
		return n
	}
	eventually(t, "four answers", func() bool { c.Containers(nil); return kept() == 4 })
	left := list[:1]
	pods.Store(&left)
	eventually(t, "the answers of one pod to be forgotten", func() bool { c.Containers(nil); return kept() == 2 })
	eventually(t, "all answers to be forgotten", func() bool { return kept() == 0 })
	c.sampler.done.Wait() // a round may have left a question under way
	before := asked.Load()
	eventually(t, "questions after a pause", func() bool { c.Containers(nil); return asked.Load() > before })

	began := make(chan struct{}, 8)
	hung := sandboxes(t, t.TempDir(), 1, func(ctx context.Context, _ string) (Told, error) {
		began <- struct{}{}
		<-ctx.Done()
		return Told{}, ctx.Err()
	})
	pods.Store(&hung)
	eventually(t, "a question that is under way", func() bool { c.Containers(nil); return len(began) > 0 })
	c.Close() // does not wait for the timeout
	equal(t, "questions after the end of the first", len(began), 1)
}
