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
	"golang.org/x/sys/unix"

	"github.com/gantry-cri/gantry/internal/container"
	"github.com/gantry-cri/gantry/internal/id"
	"github.com/gantry-cri/gantry/internal/monitor"
	"github.com/gantry-cri/gantry/internal/oci"
	"github.com/gantry-cri/gantry/internal/statefile"
)

// Layers returns whether a pod or a container has the writable layer of a
// name, by the directories in the run root: the layer of a record that can't be
// read, or that is being undone, is kept too.
func (m *Manager) Layers() (keep func(id.Container) bool, err error) {
	kept := make(map[id.Container]bool)
	pods, err := os.ReadDir(m.podsDir())
	if err != nil {
		return nil, err
	}
	for _, pod := range pods {
		kept[id.Container(pod.Name())] = true // of a pause image
		containers, err := os.ReadDir(filepath.Join(m.podsDir(), pod.Name(), container.ContainersIn))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, c := range containers {
			kept[id.Container(c.Name())] = true
		}
	}
	return func(layer id.Container) bool { return kept[layer] }, nil
}

// Present returns whether there is a pod of a name, by the directories in the run
// root: one whose record can't be read, or that is being undone, is there too.
func (m *Manager) Present() (present func(id.Pod) bool, err error) {
	entries, err := os.ReadDir(m.podsDir())
	if err != nil {
		return nil, err
	}
	there := make(map[id.Pod]bool)
	for _, e := range entries {
		there[id.Pod(e.Name())] = true
	}
	return func(pod id.Pod) bool { return there[pod] }, nil
}

// recoverAtOnce bounds how many pods are recovered in parallel.
const recoverAtOnce = 16

// monitorAnswer is how long a monitor may take to answer a new daemon before
// the daemon goes on without it and tries again in the background.
const monitorAnswer = 2 * time.Second

// Recover takes over what an earlier daemon left in the run root. After it
// returns every pod and container is listed with its true state, and what was
// half made or half removed is being undone or finished in the background.
// A record that can't be read is left alone and told by Damaged.
func (m *Manager) Recover(ctx context.Context) error {
	if err := m.Prepare(); err != nil {
		return err
	}
	if err := m.wipeAfterReboot(); err != nil {
		return err
	}
	entries, err := os.ReadDir(m.podsDir())
	if err != nil {
		return err
	}
	var g errgroup.Group
	g.SetLimit(recoverAtOnce)
	for _, e := range entries {
		g.Go(func() error {
			if err := m.recoverPod(ctx, e.Name()); err != nil {
				m.damaged.add(fmt.Sprintf("%s: %v", filepath.Join(m.podsDir(), e.Name()), err))
				m.log.Error("a pod's record can't be used; it is left alone", "pod", e.Name(), "err", err)
			}
			return nil
		})
	}
	return g.Wait()
}

func (m *Manager) recoverPod(ctx context.Context, name string) error {
	if !id.Valid(name) {
		return errors.New("not a pod's directory")
	}
	dir := filepath.Join(m.podsDir(), name)
	var rec Record
	err := statefile.Read(filepath.Join(dir, recordFile), recordVer, &rec)
	if errors.Is(err, fs.ErrNotExist) {
		return os.RemoveAll(dir) // Run ended before its first side effect
	}
	if err != nil {
		return err
	}
	if string(rec.ID) != name {
		return fmt.Errorf("%w: it is the record of pod %s", statefile.ErrDamaged, rec.ID)
	}
	rt, err := m.pinned(ctx, rec.Runtime, rec.Program)
	if err != nil {
		return err
	}
	m.opts.SELinux.Reserve(rec.SELinux)
	p := m.newPod(rec, rt)
	var ph phase
	err = statefile.Read(filepath.Join(dir, stateFile), stateVer, &ph)
	if errors.Is(err, fs.ErrNotExist) {
		m.undoing.Go(func() { m.undoInterrupted(p) })
		return nil
	}
	if err != nil {
		return err
	}
	if err := p.recoverResources(); err != nil {
		return err
	}
	return m.resume(ctx, p, Status(ph))
}

// pinned returns the runtime that a pod was made with, whatever the
// configuration says now. One whose binary is gone or broken keeps no pod from
// being listed, stopped or removed.
func (m *Manager) pinned(ctx context.Context, pin RuntimePin, program string) (*oci.Runtime, error) {
	rt, err := m.findPinned(ctx, pin)
	if err == nil {
		rt.Presume(program)
	}
	return rt, err
}

func (m *Manager) findPinned(ctx context.Context, pin RuntimePin) (*oci.Runtime, error) {
	key := pin.key()
	if rt, ok := m.Runtimes()[pin.Name]; ok && pinOf(rt).key() == key {
		return rt, nil
	}
	m.pins.Lock()
	defer m.pins.Unlock()
	if rt, ok := m.pins.known[key]; ok {
		return rt, nil
	}
	rt, err := oci.NewRuntime(ctx, pin.Name, pin.Path, pin.Root, pin.RuntimeOptions)
	if err != nil {
		return nil, err
	}
	if err := rt.Problem(); err != nil {
		m.log.Error("a runtime that pods were made with can't be used", "runtime", pin.Name, "path", pin.Path, "err", err)
	}
	m.pins.known[key] = rt
	return rt, nil
}

// RuntimeProblems says why runtimes can't be used: those of the configuration,
// and those of pods that were made with others. It never waits.
func (m *Manager) RuntimeProblems() []string {
	all := make(map[*oci.Runtime]bool)
	for _, rt := range m.Runtimes() {
		all[rt] = true
	}
	for _, p := range m.List(nil) {
		all[p.runtime] = true
	}
	var out []string
	for rt := range all {
		if err := rt.Problem(); err != nil {
			out = append(out, err.Error())
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// pins are the runtimes of recovered pods that the configuration has no more,
// by their pin's key.
type pins struct {
	sync.Mutex
	known map[string]*oci.Runtime // guarded by the mutex
}

// resume puts a recovered pod into the lists and connects its monitor.
func (m *Manager) resume(ctx context.Context, p *Pod, st Status) error {
	exit, ended, err := monitor.ReadExit(filepath.Join(p.dir, exitFile))
	if err != nil {
		p.log.Warn("exit record of the pause container unreadable", "err", err)
	}
	p.status.Store(&st)
	p.stopTold = st.State == Broken || st.State == Stopped
	if err := m.opts.Containers.Recover(ctx, &p.host); err != nil {
		m.damaged.add(fmt.Sprintf("%s: %v", p.dir, err))
		p.log.Error("containers of a pod can't be recovered; they are left alone", "err", err)
	}
	if st.State != Stopped {
		m.reconnect(ctx, p)
	}
	if ended {
		m.pauseEnded(p, fmt.Sprintf("the pause container ended with code %d", exit.Code))
	}
	m.insert(p)
	if st.State == Stopping {
		go m.finishStop(p)
	}
	return nil
}

// reconnect finds the pod's monitor: at once, or in the background where it
// does not answer. A monitor that is gone breaks the pod.
func (m *Manager) reconnect(ctx context.Context, p *Pod) {
	ctx, cancel := context.WithTimeout(ctx, monitorAnswer)
	defer cancel()
	mon, err := monitor.Connect(ctx, p.dir, m.handler(p))
	switch {
	case err == nil:
		m.adopt(p, mon)
	case isGone(err):
		m.monitorEnded(p, nil)
	default:
		p.log.Warn("the pod's monitor does not answer; trying again in the background", "err", err)
		go m.reconnectLater(p)
	}
}

func (m *Manager) reconnectLater(p *Pod) {
	for wait := firstRetry; ; wait = min(2*wait, monitorRetryMax) {
		time.Sleep(wait)
		if p.Status().State == Stopped {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), monitorAnswer)
		mon, err := monitor.Connect(ctx, p.dir, m.handler(p))
		cancel()
		if err == nil {
			m.adopt(p, mon)
			return
		}
		if isGone(err) {
			m.monitorEnded(p, nil)
			return
		}
	}
}

// isGone tells a monitor that has ended from one that does not answer: nobody
// listens at its socket any more.
func isGone(err error) bool {
	return errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.ENOENT)
}

// monitorRetryMax bounds the pause between attempts to reach a monitor.
const monitorRetryMax = 10 * time.Second

// undoInterrupted undoes a Run during which the daemon ended.
func (m *Manager) undoInterrupted(p *Pod) {
	p.log.Info("undoing a pod that was being run when the daemon ended")
	ctx, cancel := context.WithTimeout(context.Background(), m.limit())
	defer cancel()
	m.reconnect(ctx, p)
	if mon, err := p.Monitor(); err == nil {
		if err := mon.AwaitCreate(ctx, p.pauseID()); err != nil {
			p.log.Warn("the pause container's creation does not end", "err", err)
		}
	}
	if err := m.discard(ctx, p); err == nil {
		p.log.Info("undone")
	}
}

// finishStop finishes a Stop during which the daemon ended.
func (m *Manager) finishStop(p *Pod) {
	ctx, cancel := context.WithTimeout(context.Background(), m.limit())
	defer cancel()
	if err := m.Stop(ctx, p); err != nil {
		p.log.Warn("finishing an interrupted stop", "err", err)
	}
}

// quarantine remembers what could not be read at start.
type quarantine struct {
	mu   sync.Mutex
	list []string // guarded by mu
}

func (q *quarantine) add(what string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.list = append(q.list, what)
}

func (q *quarantine) names() []string {
	q.mu.Lock()
	defer q.mu.Unlock()
	return append([]string(nil), q.list...)
}
