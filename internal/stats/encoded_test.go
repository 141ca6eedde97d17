package stats

import (
	"context"
	"testing"
	"time"
)

// workingSet returns a metric of the first container, and its time in the answer.
func workingSet(t *testing.T, c *Collector, pod Pod) (value uint64, at int64) {
	t.Helper()
	list := decoded(t, c.Metrics([]Pod{pod}))
	if len(list) != 1 || len(list[0].ContainerMetrics) != len(pod.Containers) {
		t.Fatalf("%v", list)
	}
	for _, m := range list[0].ContainerMetrics[0].Metrics {
		if m.Name == "container_memory_working_set_bytes" {
			return m.Value.Value, m.Timestamp
		}
	}
	t.Fatal("no working set")
	return 0, 0
}

// TestMetricsOfTheLastRound: what the sampler encoded is told with its time,
// until the pod has other containers, the sampler is late, or the pod is gone.
func TestMetricsOfTheLastRound(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, filesV2())
	c := testCollector(t, factsV2(dir))
	pod := Pod{ID: "p", Cgroup: "/p", Shared: true, Containers: []Container{testContainer()}}
	expect := func(when string, value uint64, sampled bool) {
		t.Helper()
		got, at := workingSet(t, c, pod)
		if got != value || (at != 0) != sampled {
			t.Errorf("%s: %d at %d, want %d, sampled: %v", when, got, at, value, sampled)
		}
	}
	expect("before the first round", 7000, false)
	c.encode(&pod, &scratch{})
	write(t, dir, map[string]string{"p/c/memory.current": "10500\n"})
	expect("after it", 7000, true)
	if _, at := workingSet(t, c, pod); time.Since(time.Unix(0, at)).Abs() > time.Minute {
		t.Errorf("the time is %s", time.Unix(0, at))
	}
	one := pod.Containers
	pod.Containers = append(one[:1:1], testContainer())
	expect("with another container", 7500, false)
	pod.Containers = one
	expect("without it", 7000, true)
	c.encoded[pod.ID].at = time.Now().Add(-3 * c.opts.Period)
	expect("when the sampler is late", 7500, false)
	c.encode(&pod, &scratch{})
	c.sample(true) // which sees no pods
	equal(t, "kept pods", len(c.encoded), 0)
}

// TestMetricsOfASandboxAreNotKept: its answers come between the rounds.
func TestMetricsOfASandboxAreNotKept(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, filesV2())
	c := testCollector(t, factsV2(dir))
	pod := sandboxes(t, dir, 1, func(context.Context, string) (Told, error) { return Told{}, nil })[0]
	if _, ok := c.podMetrics(&pod, &scratch{}, time.Now()); !ok {
		t.Fatal("there is nothing to keep")
	}
	c.encode(&pod, &scratch{})
	equal(t, "kept pods", len(c.encoded), 0)
}
