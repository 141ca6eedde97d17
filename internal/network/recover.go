package network

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	"golang.org/x/sync/errgroup"

	"github.com/gantry-cri/gantry/internal/id"
)

const (
	recoverParallel = 4
	gcTimeout       = 10 * time.Second
	gcInterval      = 100 * time.Millisecond // between looks for a moment without plugins
)

// loadJournal takes over the records of former daemons.
func (m *Manager) loadJournal() error {
	records, damaged, err := m.journal.load()
	if err != nil {
		return err
	}
	m.damaged = damaged
	for _, r := range records {
		m.takeOver(r)
	}
	if err := m.adoptCached(); err != nil {
		return err
	}
	return m.journal.sweep(func(pod id.Pod) bool { return m.attachments[pod] != nil })
}

func (m *Manager) takeOver(r *record) {
	a := &attachment{pod: r.Pod, turn: make(chan struct{}, 1), former: true}
	a.rec.Store(r)
	m.attachments[r.Pod] = a
}

// adoptCached makes a record of every attachment that only libcni's cache
// knows, because the record was lost or damaged.
func (m *Manager) adoptCached() error {
	cni := m.cni(&runner{})
	cached, err := cni.GetCachedAttachments("")
	if err != nil {
		return fmt.Errorf("read the plugins' cache: %w", err)
	}
	for _, c := range cached {
		pod := id.Pod(c.ContainerID)
		if !id.Valid(c.ContainerID) || m.attachments[pod] != nil {
			continue
		}
		list, err := libcni.NetworkConfFromBytes(c.Config)
		if err != nil {
			m.log.Warn("an entry of the CNI cache can't be used", "pod", pod, "err", err)
			continue
		}
		r, err := cachedRecord(c)
		if err != nil {
			return err
		}
		if given, err := cni.GetNetworkListCachedResult(list, r.runtimeConf()); err == nil && given != nil {
			if err := r.setResult(given); err != nil {
				r.IPs = nil // an intent: it will be undone
			}
		}
		if err := m.journal.write(r); err != nil {
			return err
		}
		m.takeOver(r)
	}
	return nil
}

func cachedRecord(c *libcni.NetworkAttachment) (*record, error) {
	r := &record{
		Pod:          id.Pod(c.ContainerID),
		Network:      c.Network,
		Conf:         string(c.Config),
		IfName:       c.IfName,
		NetNS:        c.NetNS,
		Args:         c.CniArgs,
		Capabilities: map[string]json.RawMessage{},
	}
	for name, v := range c.CapabilityArgs {
		body, err := json.Marshal(v)
		if err != nil {
			return nil, err
		}
		r.Capabilities[name] = body
	}
	return r, nil
}

// Recover detaches the pods of former daemons that are not live, whose ADD was
// cut short, or whose DEL failed, frees what a power loss has made nobody's, and
// then has the plugins collect what no pod owns. It waits for the plugins, so it
// is best called beside other work; pods that this daemon has added or deleted
// already are left alone. Failures are logged and retried in the background.
func (m *Manager) Recover(ctx context.Context, live func(id.Pod) bool) {
	var strays errgroup.Group
	strays.SetLimit(recoverParallel)
	confs := m.formerConfs()
	for _, pod := range m.formerPods() {
		strays.Go(func() error {
			m.recoverPod(ctx, pod, live)
			return nil
		})
	}
	_ = strays.Wait() // none returns an error
	m.freeLost(ctx, confs)
	m.collectGarbage(ctx)
}

func (m *Manager) formerPods() []id.Pod {
	m.mu.Lock()
	defer m.mu.Unlock()
	pods := make([]id.Pod, 0, len(m.attachments))
	for pod := range m.attachments {
		pods = append(pods, pod)
	}
	return pods
}

// formerConfs are the configurations that the journal's pods were attached by.
func (m *Manager) formerConfs() map[string]bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	confs := map[string]bool{}
	for _, a := range m.attachments {
		if r := a.rec.Load(); r != nil {
			confs[r.Conf] = true
		}
	}
	return confs
}

// freeLost frees the addresses of leases that a power loss has emptied.
func (m *Manager) freeLost(ctx context.Context, confs map[string]bool) {
	kept := map[netip.Addr]bool{}
	m.mu.Lock()
	for _, a := range m.attachments {
		if r := a.rec.Load(); r != nil {
			for _, addr := range r.IPs {
				kept[addr] = true
			}
		}
	}
	m.mu.Unlock()
	for conf := range confs {
		freed, err := freeLostLeases(ctx, conf, kept)
		if err != nil {
			m.log.Warn("addresses whose leases a power loss has emptied could not be freed", "err", err)
		}
		if len(freed) > 0 {
			m.log.Info("freed addresses whose leases a power loss had emptied", "addresses", freed)
		}
	}
}

func (m *Manager) recoverPod(ctx context.Context, pod id.Pod, live func(id.Pod) bool) {
	a, err := m.enter(ctx, pod)
	if err != nil {
		return
	}
	defer m.leave(a)
	r := a.rec.Load()
	if r == nil || !a.former || r.attached() && live(pod) {
		return
	}
	if err := m.detach(ctx, a); err != nil {
		m.log.Warn("the network of a former pod could not be given back; it is tried again", "pod", pod, "err", err)
		return
	}
	m.log.Info("gave back the network of a former pod", "pod", pod)
}

// collectGarbage has the plugins of the current network remove what belongs to
// none of the journal's pods, if they know how. It waits for a moment in which
// no plugin runs, and holds up those that would run during it.
func (m *Manager) collectGarbage(ctx context.Context) {
	s := m.scan.Load()
	if s.unusable != nil || !s.network.has11() || s.network.list.DisableGC {
		return
	}
	for !m.plugins.TryLock() {
		select {
		case <-ctx.Done():
			return
		case <-m.ctx.Done():
			return
		case <-time.After(gcInterval):
		}
	}
	defer m.plugins.Unlock()
	ctx, cancel := context.WithTimeoutCause(ctx, gcTimeout, fmt.Errorf("not done within %v", gcTimeout))
	defer cancel()
	defer context.AfterFunc(m.ctx, cancel)()
	valid := m.validAttachments(s.network.list.Name)
	if err := m.cni(&runner{}).GCNetworkList(ctx, s.network.list, &libcni.GCArgs{ValidAttachments: valid}); err != nil {
		m.log.Warn("the CNI plugins could not collect garbage", "network", s.network.list.Name, "err", err)
	}
}

// validAttachments are all that the journal has of a network: also those that
// are to be deleted, because their DEL is still to come.
func (m *Manager) validAttachments(network string) []types.GCAttachment {
	m.mu.Lock()
	defer m.mu.Unlock()
	valid := []types.GCAttachment{}
	for _, a := range m.attachments {
		if r := a.rec.Load(); r != nil && r.Network == network {
			valid = append(valid, types.GCAttachment{ContainerID: string(r.Pod), IfName: r.IfName})
		}
	}
	return valid
}
