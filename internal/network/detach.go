package network

import (
	"context"
	"errors"
	"fmt"

	"github.com/containernetworking/cni/libcni"

	"github.com/gantry-cri/gantry/internal/errkind"
	"github.com/gantry-cri/gantry/internal/id"
)

// Del detaches a pod, with the configuration it was attached with. The pod's
// network namespace may be gone. It is idempotent: a pod that was never
// attached is no error. If a plugin fails, the attachment stays journalled and
// is retried in the background; the caller may go on with removing the pod.
func (m *Manager) Del(ctx context.Context, pod id.Pod) error {
	if !m.known(pod) {
		return nil
	}
	a, err := m.enter(ctx, pod)
	if err != nil {
		return fmt.Errorf("detach pod %s: %w", pod, err)
	}
	defer m.leave(a)
	if a.rec.Load() == nil {
		return nil
	}
	if err := m.detach(ctx, a); err != nil {
		return fmt.Errorf("detach pod %s: %w", pod, err)
	}
	return nil
}

func (m *Manager) known(pod id.Pod) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.attachments[pod] != nil
}

// detach runs the plugins' DEL and removes the record, or dooms the attachment.
// The caller holds the turn; the attachment has a record.
func (m *Manager) detach(ctx context.Context, a *attachment) error {
	if a.retry != nil {
		a.retry.Stop()
	}
	a.former = false
	r := a.rec.Load()
	if err := m.runDel(ctx, r); err != nil {
		err = fmt.Errorf("network %q: %w", r.Network, err)
		return errors.Join(err, m.doom(a, err))
	}
	if err := m.journal.remove(a.pod); err != nil {
		return errors.Join(err, m.doom(a, err))
	}
	a.rec.Store(nil)
	return nil
}

func (m *Manager) runDel(ctx context.Context, r *record) error {
	list, err := libcni.NetworkConfFromBytes([]byte(r.Conf))
	if err != nil {
		return err
	}
	rt := r.runtimeConf()
	if !isNetNS(rt.NetNS) {
		rt.NetNS = "" // how the specification says that the namespace is gone
	}
	if len(r.Raw) > 0 && hasInterface(r.NetNS, r.IfName) {
		if err := putAddressesBack(r); err != nil {
			m.log.Warn("DEL may not find what it has to undo", "pod", r.Pod, "err", err)
		}
	}
	return m.withPlugins(ctx, r.Pod, func(ctx context.Context, cni *libcni.CNIConfig) error {
		if needsStandIn(list, r) {
			err := m.delWithStandIn(ctx, cni, list, r)
			if err == nil {
				return nil
			}
			// The rules may be gone too, which the plugins take for a failure.
			m.log.Info("DEL with a stand-in for the pod's interface failed; it is done without", "pod", r.Pod, "err", err)
		}
		return cni.DelNetworkList(ctx, list, rt)
	})
}

func (m *Manager) delWithStandIn(ctx context.Context, cni *libcni.CNIConfig, list *libcni.NetworkConfigList, r *record) (err error) {
	path := m.journal.standIn(r.Pod)
	defer func() { err = errors.Join(err, RemoveNetNS(path)) }()
	if err := makeStandIn(path, r); err != nil {
		return err
	}
	rt := r.runtimeConf()
	rt.NetNS = path
	return cni.DelNetworkList(ctx, list, rt)
}

// Check asks the plugins whether the pod's attachment is still as they made
// it. Kinds: NotFound if the pod is not attached, Unsupported if the network's
// CNI version has no CHECK.
func (m *Manager) Check(ctx context.Context, pod id.Pod) error {
	if !m.known(pod) {
		return errkind.Errorf(errkind.NotFound, "check pod %s: it is not attached", pod)
	}
	a, err := m.enter(ctx, pod)
	if err != nil {
		return fmt.Errorf("check pod %s: %w", pod, err)
	}
	defer m.leave(a)
	r := a.rec.Load()
	if !r.attached() {
		return errkind.Errorf(errkind.NotFound, "check pod %s: it is not attached", pod)
	}
	list, err := libcni.NetworkConfFromBytes([]byte(r.Conf))
	if err != nil {
		return fmt.Errorf("check pod %s: %w", pod, err)
	}
	err = m.withPlugins(ctx, pod, func(ctx context.Context, cni *libcni.CNIConfig) error {
		return cni.CheckNetworkList(ctx, list, r.runtimeConf())
	})
	if errors.Is(err, libcni.ErrorCheckNotSupp) {
		err = errkind.Wrap(errkind.Unsupported, err)
	}
	if err != nil {
		return fmt.Errorf("check pod %s: network %q: %w", pod, r.Network, err)
	}
	return nil
}
