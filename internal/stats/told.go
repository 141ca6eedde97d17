package stats

import (
	"context"
	"time"
)

// A container in a sandbox with a kernel of its own has an empty cgroup: what
// it uses is the sandbox's to tell. Asking that takes a process and may hang, so
// it is done beside the sampler's rounds, and a request gets what was told last.

// Told is what a sandbox tells of one of its containers.
type Told struct {
	CPU     uint64 // nanoseconds since its start
	Memory  uint64 // bytes
	Threads uint64
}

// told is an answer. It is never changed after it was published.
type told struct {
	Told
	at        time.Time
	nanoCores uint64
	hasRate   bool // nanoCores is known
}

// Bounds of asking. A question costs a process of some 50 ms of CPU, and a
// sandbox that does not answer should not keep the others waiting.
const (
	askAtOnce  = 2                // questions at a time
	askTimeout = 10 * time.Second // of one question
	askPause   = time.Minute      // for which a sandbox that did not answer is left alone
)

// asker is a collector's way to ask.
type asker struct {
	slots          chan struct{} // holds one element for each question under way
	timeout, pause time.Duration
}

func newAsker() asker {
	return asker{slots: make(chan struct{}, askAtOnce), timeout: askTimeout, pause: askPause}
}

// question is one that is to be asked, and where the answer goes.
type question struct {
	group *group // of the container
	tell  func(context.Context) (Told, error)
}

// ask begins to ask a pod's sandbox for the usage of its containers, unless
// that is still being done.
func (c *Collector) ask(p *Pod) {
	var list []question
	for i := range p.Containers {
		if ctr := &p.Containers[i]; ctr.Tell != nil && !ctr.StartedAt.IsZero() {
			list = append(list, question{c.group(ctr.Cgroup), ctr.Tell})
		}
	}
	if len(list) == 0 || len(p.Parts) == 0 {
		return
	}
	sandbox := c.group(p.Parts[0])
	if !sandbox.beginAsking() {
		return
	}
	c.sampler.done.Go(func() {
		silentUntil := time.Time{}
		for _, q := range list { // one after the other, for they have the same sandbox
			if !c.askOne(q) {
				silentUntil = time.Now().Add(c.asker.pause)
				break
			}
		}
		sandbox.endAsking(silentUntil)
	})
}

// askOne asks one question; false if there was no answer in time. An error
// before that is one: the container may just have ended.
func (c *Collector) askOne(q question) bool {
	select {
	case c.asker.slots <- struct{}{}:
	case <-c.sampler.life.Done():
		return false
	}
	defer func() { <-c.asker.slots }()
	ctx, cancel := context.WithTimeout(c.sampler.life, c.asker.timeout)
	defer cancel()
	answer, err := q.tell(ctx)
	if err != nil {
		return ctx.Err() == nil
	}
	q.group.note(answer, time.Now())
	return true
}

// beginAsking reports whether the sandbox that this is the cgroup of can be
// asked now; then endAsking is called.
func (g *group) beginAsking() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.asking || time.Now().Before(g.silentUntil) {
		return false
	}
	g.asking = true
	return true
}

func (g *group) endAsking(silentUntil time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.asking, g.silentUntil = false, silentUntil
}

// note publishes an answer. Sandboxes share out by estimate what the node's
// kernel counts, which can come out below what it was before; a counter can't.
func (g *group) note(answer Told, at time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if last := g.told.Load(); last != nil {
		answer.CPU = max(answer.CPU, last.CPU)
	}
	t := &told{Told: answer, at: at}
	t.nanoCores, t.hasRate = g.rate.add(point{at, answer.CPU})
	g.told.Store(t)
}

// containerUsage is a container's usage; false when the container is gone. What
// a sandbox has not told yet is nil, and the time is zero.
func (c *Collector) containerUsage(ctr *Container, s *scratch) (usage, bool) {
	if ctr.Tell == nil {
		return c.usage(ctr.Cgroup, s)
	}
	t := c.group(ctr.Cgroup).told.Load()
	if t == nil {
		return usage{}, true
	}
	return usage{
		at:     t.at,
		cpu:    &cpu{usage: t.CPU, nanoCores: t.nanoCores, hasRate: t.hasRate},
		memory: &memory{usage: t.Memory, totalOnly: true},
	}, true
}
