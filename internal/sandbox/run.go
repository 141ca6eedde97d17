package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/internal/errkind"
	"github.com/gantry-cri/gantry/internal/flight"
	"github.com/gantry-cri/gantry/internal/id"
	"github.com/gantry-cri/gantry/internal/network"
	"github.com/gantry-cri/gantry/internal/oci"
	"github.com/gantry-cri/gantry/internal/rollback"
	"github.com/gantry-cri/gantry/internal/statefile"
)

// Run makes the pod that cfg describes, with the runtime of handler ("" is the
// default), and returns its id once it is ready. A call with the identity of
// one in flight, or of a ready pod with the same configuration, returns that
// pod. When it fails, nothing of the pod is left.
func (m *Manager) Run(ctx context.Context, cfg *runtimeapi.PodSandboxConfig, handler string) (id.Pod, error) {
	if err := validate(cfg); err != nil {
		return "", err
	}
	rt, err := m.runtime(handler)
	if err != nil {
		return "", err
	}
	if err := rt.Ready(ctx); err != nil {
		return "", fmt.Errorf("run pod: %w", err)
	}
	if err := errors.Join(m.checkUserNamespace(cfg, rt), checkSandboxed(cfg, rt)); err != nil {
		return "", err
	}
	ident := identityOf(cfg)
	return flight.Do(ctx, &m.ops, "run pod "+ident.String(), m.limit(), func(ctx context.Context) (id.Pod, error) {
		if p, ok := m.byIdentity(ident); ok {
			return p.Record.ID, p.sameRequest(cfg, handler)
		}
		p, err := m.describe(ctx, cfg, handler, rt)
		if err != nil {
			return "", err
		}
		if err := m.bringUp(ctx, p); err != nil {
			return "", fmt.Errorf("run pod %s: %w", ident, err)
		}
		return p.Record.ID, nil
	})
}

// describe decides everything about a new pod that does not change later.
func (m *Manager) describe(ctx context.Context, cfg *runtimeapi.PodSandboxConfig, handler string, rt *oci.Runtime) (*Pod, error) {
	rec := Record{
		ID:        id.NewPod(),
		CreatedAt: time.Now(),
		Config:    statefile.Of(cfg),
		Handler:   handler,
		Runtime:   pinOf(rt),
		Program:   rt.Name(),
		Hostname:  cfg.GetHostname(),
	}
	if err := m.chooseCgroup(&rec, cfg.GetLinux().GetCgroupParent()); err != nil {
		return nil, err
	}
	if rec.Hostname == "" {
		name, err := defaultHostname(cfg, rec.ID)
		if err != nil {
			return nil, err
		}
		rec.Hostname = name
	}
	if err := m.chooseLabels(&rec); err != nil {
		return nil, err
	}
	pause := m.settings.Load().Pause
	if pause.Image != "" {
		img, err := m.opts.FindImage(ctx, pause.Image)
		if err != nil {
			m.opts.SELinux.Release(rec.SELinux)
			return nil, fmt.Errorf("pause image: %w", err)
		}
		rec.PauseImage = img.ID
	}
	p := m.newPod(rec, rt)
	p.pause = pause
	return p, nil
}

// chooseLabels chooses the pod's SELinux labels.
func (m *Manager) chooseLabels(rec *Record) (err error) {
	rec.SELinux, err = m.opts.SELinux.Pod(rec.Config.Message.GetLinux().GetSecurityContext().GetSelinuxOptions())
	if err != nil {
		return fmt.Errorf("run pod: %w", err)
	}
	return nil
}

// defaultHostname is the node's name for a pod on the node's network, else the
// beginning of the pod's id.
func defaultHostname(cfg *runtimeapi.PodSandboxConfig, pod id.Pod) (string, error) {
	if hostNetwork(cfg) {
		return os.Hostname()
	}
	return string(pod[:12]), nil
}

// bringUp makes everything of the pod. The record is the intent of all of it:
// a crash leaves a directory without state.json, which recovery tears down.
func (m *Manager) bringUp(ctx context.Context, p *Pod) (err error) {
	var undo rollback.Stack
	defer undo.OnError(ctx, &err)

	undo.Push("discard the pod", func(ctx context.Context) error { return m.discard(ctx, p) })
	if err := p.makeDirectory(); err != nil {
		return err
	}
	if err := m.makeCgroup(ctx, p); err != nil {
		return err
	}
	st := Status{State: Ready}
	if err := m.startAndConnect(ctx, p, &st); err != nil {
		return err
	}
	if err := p.writeHosts(st.IPs); err != nil {
		return err
	}
	if err := m.opts.SELinux.Relabel(ctx, filepath.Join(p.dir, etcDir), p.Record.SELinux.Mount); err != nil {
		return err
	}
	return m.appear(p, st)
}

// startAndConnect starts the pause container and gives the pod its network, at
// the same time. A network namespace that belongs to the pod's user namespace
// comes with the pause container, which therefore goes first.
func (m *Manager) startAndConnect(ctx context.Context, p *Pod, st *Status) error {
	if !p.HostNetwork() && p.host.UserNS != nil {
		if err := m.startPause(ctx, p, st); err != nil {
			return err
		}
		if err := network.PinNetNS(st.PausePID, p.netns()); err != nil {
			return err
		}
		select {
		case <-p.pauseGone: // then its PID may have been another's
			return errPauseEnded
		default:
		}
		return m.connectNetwork(ctx, p, st)
	}
	if !p.HostNetwork() {
		if err := network.CreateNetNS(p.netns()); err != nil {
			return err
		}
	}
	if p.runtime.Sandboxed() { // its start takes the addresses over from the namespace
		if err := m.connectNetwork(ctx, p, st); err != nil {
			return err
		}
		return m.startPause(ctx, p, st)
	}
	var g errgroup.Group // each part ends by itself within its own deadline; both are waited for
	g.Go(func() error { return m.connectNetwork(ctx, p, st) })
	g.Go(func() error { return m.startPause(ctx, p, st) })
	return g.Wait()
}

// checkUserNamespace refuses a pod with a user namespace where that would not work.
func (m *Manager) checkUserNamespace(cfg *runtimeapi.PodSandboxConfig, rt *oci.Runtime) error {
	u, err := oci.PodUserNamespace(namespaces(cfg))
	if err != nil || u == nil {
		return err
	}
	if err := m.UserNamespaces(rt); err != nil {
		return fmt.Errorf("run pod: %w", err)
	}
	return nil
}

var errPauseEnded = errors.New("the pause container ended at once")

// publishReady makes a pod ready, unless its pause has ended meanwhile.
func (p *Pod) publishReady(st Status) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.pauseGone:
		return errPauseEnded
	default:
	}
	if err := p.writePhase(st); err != nil {
		return err
	}
	p.status.Store(&st)
	return nil
}

func (p *Pod) makeDirectory() error {
	for _, dir := range []string{p.dir, p.bundle(), p.containersDir(), filepath.Join(p.dir, etcDir), filepath.Join(p.dir, shmDir)} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
		if err := p.host.Admit(dir); err != nil {
			return err
		}
	}
	if err := statefile.Write(filepath.Join(p.dir, recordFile), recordVer, p.Record); err != nil {
		return err
	}
	if dir := p.Config().GetLogDirectory(); dir != "" {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return errkind.Errorf(errkind.FullOr(errkind.Invalid, err), "log directory: %w", err)
		}
	}
	return p.writeEtc()
}

func (m *Manager) connectNetwork(ctx context.Context, p *Pod, st *Status) error {
	if p.HostNetwork() {
		return nil
	}
	res, err := m.opts.Network.Add(ctx, p.networkRequest())
	if err != nil {
		return fmt.Errorf("network: %w", err)
	}
	if len(res.IPs) == 0 {
		return errors.New("network: the CNI plugins gave the pod no IP address")
	}
	st.IPs = res.IPs
	return nil
}

func (p *Pod) networkRequest() network.Pod {
	cfg := p.Config()
	return network.Pod{
		ID:           p.Record.ID,
		Name:         cfg.GetMetadata().GetName(),
		Namespace:    cfg.GetMetadata().GetNamespace(),
		UID:          cfg.GetMetadata().GetUid(),
		NetNS:        p.netns(),
		Ports:        portMappings(cfg),
		DNS:          dnsConfig(cfg),
		Annotations:  cfg.GetAnnotations(),
		CgroupParent: p.Record.CgroupParent,
	}
}
