package sandbox

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/gantry-cri/gantry/internal/rollback"
)

// discard undoes a pod that never became ready. What can't be undone now (a
// process in uninterruptible sleep, a busy mount) keeps its record, so that
// the next daemon finds it, and is tried again in the background meanwhile.
func (m *Manager) discard(ctx context.Context, p *Pod) error {
	err := m.undoRun(ctx, p)
	if err != nil {
		p.log.Warn("a failed pod is not undone yet; it is retried", "err", err)
		go m.discardLater(p)
	}
	return err
}

func (m *Manager) undoRun(ctx context.Context, p *Pod) error {
	if err := m.tearDown(ctx, p); err != nil {
		return err
	}
	return m.removeTraces(ctx, p)
}

// removeTraces removes what is left of a pod of which nothing runs: its pause
// container's layer, the cgroup that Gantry made for it, and its directory.
func (m *Manager) removeTraces(ctx context.Context, p *Pod) error {
	if p.Record.PauseImage != "" {
		if err := m.opts.Storage.RemoveRootFS(p.pauseID()); err != nil {
			return err
		}
	}
	for _, ctr := range m.unknown(p) {
		if err := m.opts.Storage.RemoveRootFS(ctr); err != nil {
			return err
		}
	}
	if err := m.removeCgroup(ctx, p); err != nil {
		return err
	}
	if err := os.RemoveAll(p.dir); err != nil {
		return fmt.Errorf("remove the pod's directory: %w", err)
	}
	m.opts.SELinux.Release(p.Record.SELinux)
	return nil
}

// Pauses between the attempts of discardLater: doubling from the first to the last.
const (
	firstRetry = time.Second
	lastRetry  = 5 * time.Minute
)

func (m *Manager) discardLater(p *Pod) {
	for wait := firstRetry; ; wait = min(2*wait, lastRetry) {
		time.Sleep(wait)
		ctx, cancel := context.WithTimeout(context.Background(), rollback.Timeout)
		err := m.undoRun(ctx, p)
		cancel()
		if err == nil {
			p.log.Info("a failed pod is undone now")
			return
		}
	}
}
