package network

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/gantry-cri/gantry/internal/id"
)

// releaseParallel is more than recoverParallel: nothing else is being done.
const releaseParallel = 16

// Release detaches every pod that the journal has, for a node on which none is
// to stay. A pod whose DEL has failed already since New is not tried again. Where
// a record was damaged, and the plugins' cache does not have it either, the
// network of new pods is asked to forget the pod. It returns an error for each
// pod whose network was not given back; those stay journalled for the next time.
func (m *Manager) Release(ctx context.Context) []error {
	var mu sync.Mutex
	var errs []error // guarded by mu
	var g errgroup.Group
	g.SetLimit(releaseParallel)
	try := func(release func() error) {
		g.Go(func() error {
			if err := release(); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, err)
			}
			return nil
		})
	}
	for _, pod := range m.formerPods() {
		try(func() error { return m.releasePod(ctx, pod) })
	}
	for _, file := range m.damaged {
		if pod := id.Pod(strings.TrimSuffix(filepath.Base(file), recordExt)); !m.known(pod) {
			try(func() error { return m.releaseDamaged(ctx, pod, file) })
		}
	}
	_ = g.Wait() // none returns an error
	return errs
}

func (m *Manager) releasePod(ctx context.Context, pod id.Pod) error {
	a, err := m.enter(ctx, pod)
	if err != nil {
		return fmt.Errorf("network of pod %s: not given back: %w", pod, err)
	}
	defer m.leave(a)
	if a.rec.Load() == nil {
		return nil
	}
	if err = a.why; a.failed == 0 {
		err = m.detach(ctx, a)
	}
	if err != nil {
		return fmt.Errorf("network of pod %s: not given back: %w", pod, err)
	}
	return nil
}

// releaseDamaged runs DEL for a pod of which only the name is known.
func (m *Manager) releaseDamaged(ctx context.Context, pod id.Pod, file string) error {
	s := m.scan.Load()
	err := s.unusable
	if err == nil {
		var r *record
		if r, err = newRecord(s.network, Pod{ID: pod}); err == nil {
			err = m.runDel(ctx, r)
		}
	}
	if err == nil {
		err = m.journal.remove(pod)
	}
	if err != nil {
		return fmt.Errorf("network of pod %s: its record was damaged (%s), addresses may stay given away: %w", pod, file, err)
	}
	return nil
}
