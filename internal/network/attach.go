package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/gantry-cri/gantry/internal/errkind"
	"github.com/gantry-cri/gantry/internal/id"
)

// Add attaches a pod to the network that is configured now and returns what it
// was given. A pod that is attached keeps what it has, and no plugin is run.
// On failure nothing is left; if the plugins fail to undo, that is retried in
// the background, and by the next Add or Del of the pod. When ctx ends, so do
// the plugins. Kinds: Invalid, Unavailable, Timeout.
func (m *Manager) Add(ctx context.Context, pod Pod) (Result, error) {
	if !id.Valid(string(pod.ID)) {
		return Result{}, errkind.Errorf(errkind.Invalid, "attach pod: %q is no pod id", pod.ID)
	}
	a, err := m.enter(ctx, pod.ID)
	if err != nil {
		return Result{}, fmt.Errorf("attach pod %s: %w", pod.ID, err)
	}
	defer m.leave(a)
	if r := a.rec.Load(); r.attached() {
		a.former = false
		return r.result(), nil
	} else if r != nil {
		if err := m.detach(ctx, a); err != nil {
			return Result{}, fmt.Errorf("attach pod %s: end its former attachment: %w", pod.ID, err)
		}
	}
	result, err := m.attach(ctx, a, pod)
	if err != nil {
		return Result{}, fmt.Errorf("attach pod %s: %w", pod.ID, err)
	}
	return result, nil
}

// attach journals the intent, runs the plugins and journals what they gave.
// The caller holds the turn; the attachment has no record.
func (m *Manager) attach(ctx context.Context, a *attachment, pod Pod) (Result, error) {
	s := m.scan.Load()
	if s.unusable != nil {
		return Result{}, s.unusable
	}
	r, err := newRecord(s.network, pod)
	if err != nil {
		return Result{}, err
	}
	if err := m.journal.write(r); err != nil {
		return Result{}, errors.Join(err, m.journal.remove(pod.ID))
	}
	a.rec.Store(r)
	a.former, a.failed = false, 0
	synced := make(chan error, 1)
	go func() { synced <- m.journal.sync(pod.ID) }()
	done, err := m.runAdd(ctx, s.network, *r)
	if err = errors.Join(err, <-synced); err == nil {
		err = m.journal.write(done)
	}
	if err != nil {
		err = fmt.Errorf("%v: %w", s.network, err)
		if undoErr := m.detach(context.WithoutCancel(ctx), a); undoErr != nil {
			err = errors.Join(err, fmt.Errorf("undo: %w", undoErr))
		}
		return Result{}, err
	}
	a.rec.Store(done)
	return done.result(), nil
}

// runAdd returns r with what the plugins gave.
func (m *Manager) runAdd(ctx context.Context, n *configured, r record) (*record, error) {
	var given types.Result
	err := m.withPlugins(ctx, r.Pod, func(ctx context.Context, cni *libcni.CNIConfig) (err error) {
		given, err = cni.AddNetworkList(ctx, n.list, r.runtimeConf())
		return err
	})
	if err != nil {
		return nil, err
	}
	return &r, r.setResult(given)
}

// withPlugins runs fn, which runs plugins for the pod, within the bound on one
// operation and after the end of whatever is left of an earlier one.
func (m *Manager) withPlugins(ctx context.Context, pod id.Pod, fn func(context.Context, *libcni.CNIConfig) error) (err error) {
	m.plugins.RLock()
	defer m.plugins.RUnlock()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(m.ctx, cancel)()
	held, err := hold(ctx, m.journal.lock(pod), min(leftoverGrace, m.settings.Load().Timeout))
	if err != nil {
		return err
	}
	ctx, cancelBound := m.bounded(ctx)
	defer cancelBound()
	err = fn(ctx, m.cni(&runner{held: held}))
	timedOut := ctx.Err() != nil
	err = errors.Join(err, held.Close())
	if timedOut {
		err = errors.Join(err, endLeftovers(m.journal.lock(pod)))
	}
	return err
}

// endLeftovers kills what a run whose deadline has passed left behind beyond
// the plugins' process groups.
func endLeftovers(lock string) error {
	f, err := hold(context.Background(), lock, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return f.Close()
}

// setResult notes what ADD gave.
func (r *record) setResult(given types.Result) error {
	result, err := types100.NewResultFromResult(given)
	if err != nil {
		return fmt.Errorf("the plugins' result: %w", err)
	}
	r.IPs = podIPs(result, r.IfName)
	if len(r.IPs) == 0 {
		return errors.New("the plugins gave the pod no IP address")
	}
	if r.Raw, err = json.Marshal(result); err != nil {
		return fmt.Errorf("the plugins' result: %w", err)
	}
	return nil
}

// podIPs are the addresses of the pod's interface in the plugins' order, which
// has the primary first. An address that names no interface is the pod's.
func podIPs(result *types100.Result, ifName string) []netip.Addr {
	var out []netip.Addr
	for _, ip := range result.IPs {
		if ip == nil {
			continue
		}
		if i := ip.Interface; i != nil {
			if *i < 0 || *i >= len(result.Interfaces) || result.Interfaces[*i] == nil {
				continue
			}
			if in := result.Interfaces[*i]; in.Sandbox == "" || in.Name != ifName {
				continue
			}
		}
		if addr, ok := netip.AddrFromSlice(ip.Address.IP); ok {
			out = append(out, addr.Unmap())
		}
	}
	return out
}
