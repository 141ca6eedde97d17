package stats

import (
	"slices"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/internal/id"
)

// encodedPod is a pod's metrics as the sampler read and encoded them. Reading
// and encoding are most of what an answer costs, and the one who asks looks
// every ten seconds or more.
type encodedPod struct {
	at         time.Time
	containers []id.Container // that it tells of
	message    *runtimeapi.PodSandboxMetrics
}

// encode keeps the metrics of a pod for the requests until the next round. Those
// of a pod in a sandbox are not kept: its answers come between the rounds.
func (c *Collector) encode(p *Pod, s *scratch) {
	e := &encodedPod{at: time.Now()}
	for i := range p.Containers {
		if p.Containers[i].Tell != nil {
			return
		}
		e.containers = append(e.containers, p.Containers[i].ID)
	}
	var ok bool
	if e.message, ok = c.podMetrics(p, s, e.at); !ok {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.encoded[p.ID] = e
}

// encodedMetrics returns what is kept of a pod, unless it is of other containers
// than the pod has now, or the sampler is late.
func (c *Collector) encodedMetrics(p *Pod) (*runtimeapi.PodSandboxMetrics, bool) {
	c.mu.Lock()
	e, ok := c.encoded[p.ID]
	c.mu.Unlock()
	if !ok || time.Since(e.at) > 2*c.opts.Period {
		return nil, false
	}
	same := slices.EqualFunc(e.containers, p.Containers, func(known id.Container, now Container) bool { return known == now.ID })
	return e.message, same
}

// pruneEncoded forgets the pods that keep does not have.
func (c *Collector) pruneEncoded(keep map[id.Pod]bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for pod := range c.encoded {
		if !keep[pod] {
			delete(c.encoded, pod)
		}
	}
}
