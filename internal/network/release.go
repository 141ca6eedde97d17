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
// to stay. A pod whose DEL has failed already since New is not tried again. It
// returns an error for each pod whose network was not given back; those stay
// journalled for the next time.
func (m *Manager) Release(ctx context.Context) []error {
	return eachPod(m.formerPods(), func(pod id.Pod) error {
		if err := m.releasePod(ctx, pod); err != nil {
			return fmt.Errorf("network of pod %s: not given back: %w", pod, err)
		}
		return nil
	})
}

// ReleaseDamaged asks the network of new pods to forget those whose records were
// damaged, and which the plugins' cache does not have either: there is nothing
// better to go by. netns tells where a pod's namespace is, if it is still there.
// It returns an error for each pod of which something may be left.
func (m *Manager) ReleaseDamaged(ctx context.Context, netns func(id.Pod) string) []error {
	var pods []id.Pod
	for _, file := range m.damaged {
		if pod := id.Pod(strings.TrimSuffix(filepath.Base(file), recordExt)); !m.known(pod) {
			pods = append(pods, pod)
		}
	}
	return eachPod(pods, func(pod id.Pod) error {
		if err := m.releaseDamaged(ctx, pod, netns(pod)); err != nil {
			return fmt.Errorf("network of pod %s: its record is damaged, and addresses may stay given away: %w", pod, err)
		}
		return nil
	})
}

// eachPod calls release for the pods, several at a time, and returns its errors.
func eachPod(pods []id.Pod, release func(id.Pod) error) []error {
	var mu sync.Mutex
	var errs []error // guarded by mu
	var g errgroup.Group
	g.SetLimit(releaseParallel)
	for _, pod := range pods {
		g.Go(func() error {
			if err := release(pod); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, err)
			}
			return nil
		})
	}
	_ = g.Wait() // none returns an error
	return errs
}

func (m *Manager) releasePod(ctx context.Context, pod id.Pod) error {
	a, err := m.enter(ctx, pod)
	if err != nil {
		return err
	}
	defer m.leave(a)
	switch {
	case a.rec.Load() == nil:
		return nil
	case a.failed > 0:
		return a.why
	}
	return m.detach(ctx, a)
}

// releaseDamaged runs DEL for a pod of which the name is known, and the namespace.
func (m *Manager) releaseDamaged(ctx context.Context, pod id.Pod, netns string) error {
	s := m.scan.Load()
	if s.unusable != nil {
		return s.unusable
	}
	// The portmap plugin does nothing for a pod without ports, and takes what it
	// has for a pod by the pod's name, whatever the ports are.
	r, err := newRecord(s.network, Pod{ID: pod, NetNS: netns, Ports: []PortMapping{{HostPort: 1, ContainerPort: 1}}})
	if err != nil {
		return err
	}
	if err := m.runDel(ctx, r); err != nil {
		return err
	}
	return m.journal.remove(pod)
}
