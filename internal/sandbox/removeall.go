package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/gantry-cri/gantry/internal/cgroup"
	"github.com/gantry-cri/gantry/internal/id"
)

// removeAtOnce bounds how many pods RemoveAll works on in parallel.
const removeAtOnce = 16

// RemoveAll recovers what a daemon left in the run root and removes every pod,
// for a node on which none is to stay. A pod that can't be removed in the usual
// way within limit, or whose record can't be read, is ended by what its
// directory and its cgroups tell. It returns an error for each pod that is there
// still; the others are gone, but for networks that could not be given back.
func (m *Manager) RemoveAll(ctx context.Context, limit time.Duration) []error {
	recoverErr := m.Recover(ctx) // of no account if all can be ended without
	tried := m.removeListed(ctx, limit)
	waitAtMost(ctx, &m.undoing, limit)
	entries, err := os.ReadDir(m.podsDir())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return []error{errors.Join(recoverErr, err)}
	}
	var mu sync.Mutex
	var errs []error // guarded by mu
	var g errgroup.Group
	g.SetLimit(removeAtOnce)
	for _, e := range entries {
		if !id.Valid(e.Name()) || !e.IsDir() {
			continue // no pod's
		}
		g.Go(func() error {
			limited, cancel := context.WithTimeout(ctx, limit)
			defer cancel()
			pod := id.Pod(e.Name())
			why := tried[pod]
			if why == nil { // else DEL has been asked for already
				m.giveBack(limited, pod)
			}
			if err := m.endByForce(limited, pod); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, fmt.Errorf("pod %s: %w", pod, errors.Join(why, err)))
			}
			return nil
		})
	}
	_ = g.Wait() // none returns an error
	if len(errs) > 0 && recoverErr != nil {
		errs = append(errs, recoverErr)
	}
	return errs
}

// RemoveCgroups removes what cgroups of pods are left, empty, where Gantry makes
// them; systemd drops its own by itself.
func (m *Manager) RemoveCgroups(ctx context.Context) error {
	if m.opts.Cgroups == cgroup.Systemd {
		return nil
	}
	return cgroup.RemoveEmpty(ctx, m.opts.Node, m.opts.CgroupParent, id.Valid)
}

// giveBack gives a pod's network back while its namespace is there. If that
// fails, its journal remains.
func (m *Manager) giveBack(ctx context.Context, pod id.Pod) {
	if err := m.opts.Network.Del(ctx, pod); err != nil {
		m.log.Warn("network not given back", "pod", pod, "err", err)
	}
}

// removeListed removes the pods that can be listed, and returns why it could not
// for those that are left.
func (m *Manager) removeListed(ctx context.Context, limit time.Duration) map[id.Pod]error {
	var mu sync.Mutex
	failed := make(map[id.Pod]error) // guarded by mu
	var g errgroup.Group
	g.SetLimit(removeAtOnce)
	for _, p := range m.List(nil) {
		g.Go(func() error {
			limited, cancel := context.WithTimeout(ctx, limit)
			defer cancel()
			if err := m.Remove(limited, p); err != nil {
				p.log.Warn("a pod can't be removed in the usual way; it is ended by force", "err", err)
				mu.Lock()
				defer mu.Unlock()
				failed[p.Record.ID] = err
			}
			return nil
		})
	}
	_ = g.Wait() // none returns an error
	return failed
}

// waitAtMost waits for the group, until limit or ctx ends.
func waitAtMost(ctx context.Context, g *sync.WaitGroup, limit time.Duration) {
	done := make(chan struct{})
	go func() {
		g.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
	case <-time.After(limit):
	}
}

// EndRuntimes keeps the runtimes from being run again: an operation that RemoveAll
// has given up would go on, and have them make their directories anew.
func (m *Manager) EndRuntimes() {
	for _, rt := range m.runtimes() {
		rt.End()
	}
}

// RuntimeRoots are the directories in which the runtimes keep their state: those
// of the configuration, and after Recover those of pods made with others.
func (m *Manager) RuntimeRoots() []string {
	var roots []string
	for _, rt := range m.runtimes() {
		roots = append(roots, rt.Root())
	}
	slices.Sort(roots)
	return slices.Compact(roots)
}

// NetNS is where a pod's network namespace is pinned, if it is.
func (m *Manager) NetNS(pod id.Pod) string {
	return filepath.Join(m.podsDir(), string(pod), netnsFile)
}

// PodCount tells how many pods and containers have directories below a run root,
// whatever state they are in. What can't be read counts as nothing.
func PodCount(runRoot string) (pods, containers int) {
	m := Manager{opts: Options{RunRoot: runRoot}}
	entries, err := os.ReadDir(m.podsDir())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, 0
	}
	for _, e := range entries {
		if id.Valid(e.Name()) {
			pods++
			containers += len(m.containersIn(id.Pod(e.Name())))
		}
	}
	return pods, containers
}
