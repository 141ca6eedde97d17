package container

import (
	"cmp"
	"slices"
	"sync"

	"github.com/gantry-cri/gantry/internal/id"
)

// podTable finds the containers of a pod without looking at those of others.
// Its lock is held for map operations only.
type podTable struct {
	mu  sync.RWMutex
	all map[id.Pod]map[id.Container]*Container // guarded by mu; no empty inner map
}

func (t *podTable) put(c *Container) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.all == nil {
		t.all = make(map[id.Pod]map[id.Container]*Container)
	}
	if t.all[c.Record.Pod] == nil {
		t.all[c.Record.Pod] = make(map[id.Container]*Container)
	}
	t.all[c.Record.Pod][c.Record.ID] = c
}

func (t *podTable) remove(c *Container) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.all[c.Record.Pod], c.Record.ID)
	if len(t.all[c.Record.Pod]) == 0 {
		delete(t.all, c.Record.Pod)
	}
}

// of returns the visible containers of a pod, oldest first.
func (t *podTable) of(pod id.Pod) []*Container {
	t.mu.RLock()
	out := make([]*Container, 0, len(t.all[pod]))
	for _, c := range t.all[pod] {
		if c.visible() {
			out = append(out, c)
		}
	}
	t.mu.RUnlock()
	slices.SortFunc(out, func(a, b *Container) int {
		return cmp.Or(a.Record.CreatedAt.Compare(b.Record.CreatedAt), cmp.Compare(a.Record.ID, b.Record.ID))
	})
	return out
}

// add makes a container findable.
func (m *Manager) add(c *Container) {
	m.pods.put(c)
	m.index.Put(c.Record.ID, c)
}

// drop ends that.
func (m *Manager) drop(c *Container) {
	m.index.Delete(c.Record.ID)
	m.pods.remove(c)
}
