package sandbox

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/gantry-cri/gantry/internal/cgroup"
	"github.com/gantry-cri/gantry/internal/flight"
	"github.com/gantry-cri/gantry/internal/monitor"
	"github.com/gantry-cri/gantry/internal/network"
)

// Stop ends every process of a pod and gives its network back. It is
// idempotent. A network that can't be given back now stays journalled and is
// retried by package network: it does not keep the pod from stopping.
func (m *Manager) Stop(ctx context.Context, p *Pod) error {
	if p.Status().State == Stopped {
		return nil
	}
	_, err := flight.Do(ctx, &m.ops, "stop pod "+string(p.Record.ID), m.limit(), func(ctx context.Context) (struct{}, error) {
		p.transition(Stopping, "")
		p.op.Lock()
		defer p.op.Unlock()
		return struct{}{}, m.stop(ctx, p)
	})
	return err
}

// stop needs p.op held.
func (m *Manager) stop(ctx context.Context, p *Pod) error {
	if p.Status().State == Stopped {
		return nil
	}
	if err := m.tearDown(ctx, p); err != nil {
		return fmt.Errorf("stop pod %s: %w", p.Record.ID, err)
	}
	p.transition(Stopped, "")
	return nil
}

// Remove removes a pod and its containers, stopping it first. It is idempotent.
func (m *Manager) Remove(ctx context.Context, p *Pod) error {
	_, err := flight.Do(ctx, &m.ops, "remove pod "+string(p.Record.ID), 2*m.limit(), func(ctx context.Context) (struct{}, error) {
		p.transition(Stopping, "")
		p.op.Lock()
		defer p.op.Unlock()
		if err := m.stop(ctx, p); err != nil {
			return struct{}{}, err
		}
		return struct{}{}, m.remove(ctx, p)
	})
	return err
}

// remove needs p.op held. The pod's directory, the record in it, goes last.
func (m *Manager) remove(ctx context.Context, p *Pod) error {
	var g errgroup.Group
	g.SetLimit(8)
	for _, c := range m.opts.Containers.OfPod(p.Record.ID) {
		g.Go(func() error { return m.opts.Containers.Remove(ctx, c) })
	}
	if err := g.Wait(); err != nil {
		return fmt.Errorf("remove pod %s: %w", p.Record.ID, err)
	}
	if err := p.runtime.ForgetSandbox(string(p.pauseID())); err != nil {
		p.log.Warn("locks of the runtime are left", "err", err)
	}
	if err := m.removeTraces(ctx, p); err != nil {
		return fmt.Errorf("remove pod %s: %w", p.Record.ID, err)
	}
	m.disappear(p)
	return nil
}

// tearDown ends what runs of a pod: its containers, its pause container, its
// network and its monitor. Each part is idempotent, and each is tried whatever
// became of the others.
func (m *Manager) tearDown(ctx context.Context, p *Pod) error {
	var netErr error
	var wg sync.WaitGroup
	wg.Go(func() { netErr = m.disconnectNetwork(ctx, p) })
	err := m.killContainers(ctx, p)
	err = errors.Join(err, m.endUnknown(ctx, p))
	err = errors.Join(err, m.endPause(ctx, p))
	err = errors.Join(err, m.endMonitor(ctx, p))
	err = errors.Join(err, m.endStrays(ctx, p))
	wg.Wait()
	if netErr == nil {
		netErr = network.RemoveNetNS(p.netns())
	}
	return errors.Join(err, netErr)
}

// disconnectNetwork gives the pod's network back. A failing plugin is logged:
// the attachment stays journalled and package network retries it.
func (m *Manager) disconnectNetwork(ctx context.Context, p *Pod) error {
	if p.HostNetwork() {
		return nil
	}
	if err := m.opts.Network.Del(ctx, p.Record.ID); err != nil {
		p.log.Warn("network not given back yet; it is retried in the background", "err", err)
	}
	return nil
}

func (m *Manager) killContainers(ctx context.Context, p *Pod) error {
	var g errgroup.Group
	for _, c := range m.opts.Containers.OfPod(p.Record.ID) {
		g.Go(func() error { return m.opts.Containers.Stop(ctx, c, 0) })
	}
	return g.Wait()
}

// endPause kills the pause container and lets the runtime forget it.
func (m *Manager) endPause(ctx context.Context, p *Pod) error {
	if err := cgroup.KillAll(ctx, m.opts.Node, p.pauseCgroup()); err != nil {
		return fmt.Errorf("kill the pause container: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, m.settings.Load().RuntimeTimeout)
	defer cancel()
	if err := p.runtime.Delete(ctx, string(p.pauseID()), true); err != nil {
		return fmt.Errorf("delete the pause container: %w", err)
	}
	return cgroup.Remove(ctx, m.opts.Node, p.pauseCgroup())
}

// monitorExit is how long the monitor may take to end when asked, before it
// is killed: it has nothing left to record then.
const monitorExit = 5 * time.Second

// endMonitor ends the pod's monitor once all its containers' exits are
// recorded. The containers' clean-up comes first, as it talks to the monitor.
func (m *Manager) endMonitor(ctx context.Context, p *Pod) error {
	for _, c := range m.opts.Containers.OfPod(p.Record.ID) {
		if err := c.WaitCleaned(ctx); err != nil {
			return err
		}
	}
	if mon, err := p.Monitor(); err == nil {
		if err := p.shutDown(ctx, mon); err != nil {
			p.log.Warn("monitor did not end when asked; killing it", "err", err)
			if err := unix.Kill(mon.PID(), unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("kill the monitor: %w", err)
			}
		}
	}
	if err := cgroup.KillAll(ctx, m.monitorNode, p.monitorCgroup()); err != nil {
		return fmt.Errorf("end the monitor: %w", err)
	}
	return cgroup.Remove(ctx, m.monitorNode, p.monitorCgroup())
}

// shutDown asks the monitor to end. It refuses while it has not yet seen the
// end of the pause container, which was killed just now: then it is asked again.
func (p *Pod) shutDown(ctx context.Context, mon *monitor.Client) error {
	ctx, cancel := context.WithTimeout(ctx, monitorExit)
	defer cancel()
	err := mon.Shutdown(ctx)
	if !errors.Is(err, unix.EBUSY) {
		return err
	}
	select {
	case <-p.pauseGone:
		return mon.Shutdown(ctx)
	case <-ctx.Done():
		return err
	}
}
