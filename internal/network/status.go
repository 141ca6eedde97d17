package network

import (
	"context"
	"fmt"
	"time"

	"github.com/gantry-cri/gantry/internal/errkind"
)

const (
	tickInterval  = 10 * time.Second
	statusTimeout = 5 * time.Second
)

// statusReply is what a network's plugins said to STATUS.
type statusReply struct {
	network *configured
	err     error
}

// statusOf is what is known of n's STATUS.
func (m *Manager) statusOf(n *configured) error {
	if !n.has11() {
		return nil
	}
	reply := m.status.Load()
	if reply == nil || reply.network != n {
		return errkind.Errorf(errkind.Unavailable, "%v: its plugins have not answered STATUS yet", n)
	}
	return reply.err
}

// keepStatus asks the network's plugins for their STATUS whenever the
// configuration changes and from time to time, if they can answer. It also
// reads a configuration that can't be watched.
func (m *Manager) keepStatus() {
	tick := time.NewTicker(tickInterval)
	defer tick.Stop()
	for {
		select {
		case <-m.ctx.Done():
			return
		case <-m.scanned:
		case <-tick.C:
			if m.watcher == nil || m.watcher.blind.Load() {
				m.rescan()
			}
		}
		s := m.scan.Load()
		if s.unusable == nil && s.network.has11() {
			m.refreshStatus(s.network)
		}
	}
}

func (m *Manager) refreshStatus(n *configured) {
	ctx, cancel := context.WithTimeoutCause(m.ctx, statusTimeout, fmt.Errorf("no answer within %v", statusTimeout))
	defer cancel()
	err := m.cni(&runner{}).GetStatusNetworkList(ctx, n.list)
	if m.ctx.Err() != nil {
		return
	}
	if err != nil {
		err = errkind.Errorf(errkind.Unavailable, "%v: STATUS: %w", n, err)
	}
	old := m.status.Swap(&statusReply{n, err})
	wasWell := old == nil || old.network != n || old.err == nil
	if err != nil && wasWell {
		m.log.Warn("the CNI plugins are not ready", "err", err)
	} else if err == nil && !wasWell {
		m.log.Info("the CNI plugins are ready again", "network", n.list.Name)
	}
}
