package network

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/gantry-cri/gantry/internal/id"
)

// attachment is a pod's entry in the Manager.
//
//	            ADD begins                ADD succeeded
//	(no record) ----------> intent ----------------------> attached
//	     ^                    |  ADD failed                   |
//	     |   DEL succeeded    v                               v Del
//	     +-------------------------- DEL <--------------------+
//	                                 |^
//	                      DEL failed v| Del, Add, Recover, retry timer
//	                               doomed
//
// The state is the record on disk: none, without IPs, with IPs, doomed.
type attachment struct {
	pod  id.Pod
	turn chan struct{} // holds a token while an operation runs

	rec atomic.Pointer[record] // the journal's record; written by the turn's holder only

	// These are the turn holder's.
	former bool        // the record is a former daemon's, and nothing was done about it yet
	failed int         // DELs that failed in a row
	why    error       // of the last of them
	retry  *time.Timer // of a doomed attachment
}

// enter waits for the pod's turn. The caller must leave.
func (m *Manager) enter(ctx context.Context, pod id.Pod) (*attachment, error) {
	for {
		m.mu.Lock()
		a := m.attachments[pod]
		if a == nil {
			a = &attachment{pod: pod, turn: make(chan struct{}, 1)}
			m.attachments[pod] = a
		}
		m.mu.Unlock()
		select {
		case a.turn <- struct{}{}:
		case <-ctx.Done():
			m.dropUnused(a)
			return nil, fmt.Errorf("wait for the network operation in progress: %w", context.Cause(ctx))
		case <-m.ctx.Done():
			return nil, errClosed
		}
		m.mu.Lock()
		current := m.attachments[pod] == a
		m.mu.Unlock()
		if current {
			return a, nil
		}
		<-a.turn // it was dropped while we waited
	}
}

// dropUnused forgets the pod if no operation is in progress and it has no
// record.
func (m *Manager) dropUnused(a *attachment) {
	select {
	case a.turn <- struct{}{}:
		m.leave(a)
	default:
	}
}

// leave ends the turn, and forgets the pod if it has no record.
func (m *Manager) leave(a *attachment) {
	if a.rec.Load() == nil {
		m.mu.Lock()
		if m.attachments[a.pod] == a {
			delete(m.attachments, a.pod)
		}
		m.mu.Unlock()
	}
	<-a.turn
}

const (
	retryFirst = time.Second
	retryMost  = time.Minute
)

// retryDelay doubles with each failed DEL, up to a minute.
func retryDelay(failed int) time.Duration {
	return min(retryMost, retryFirst<<min(failed-1, 10))
}

// doom notes that a DEL has failed and arranges for the next. The pod's
// namespace is kept for it, since the pod's owner won't: some plugins find what
// to undo only there. The caller holds the turn.
func (m *Manager) doom(a *attachment, why error) error {
	r := *a.rec.Load()
	r.Doomed = true
	if kept := m.journal.netns(a.pod); r.NetNS != kept && keepNetNS(r.NetNS, kept) {
		r.NetNS = kept
	}
	a.rec.Store(&r)
	a.failed++
	a.why = why
	a.retry = time.AfterFunc(retryDelay(a.failed), func() { m.retryDel(a.pod) })
	return m.journal.write(&r)
}

func (m *Manager) retryDel(pod id.Pod) {
	m.mu.Lock()
	if m.ctx.Err() != nil || m.attachments[pod] == nil {
		m.mu.Unlock()
		return
	}
	m.tasks.Add(1) // before Close waits: it cancels first, and we hold mu
	m.mu.Unlock()
	defer m.tasks.Done()
	a, err := m.enter(m.ctx, pod)
	if err != nil {
		return
	}
	defer m.leave(a)
	if r := a.rec.Load(); r == nil || !r.Doomed {
		return
	}
	if err := m.detach(m.ctx, a); err != nil {
		m.log.Warn("a pod's network could not be given back; it is tried again", "pod", pod, "failures", a.failed, "err", err)
		return
	}
	m.log.Info("a pod's network was given back at last", "pod", pod)
}
