// Package network connects pods to the node's CNI network: it keeps an eye on
// the configuration, makes network namespaces, runs the plugins, and keeps a
// journal so that every ADD is followed by a DEL, whatever dies in between.
//
// The specification is https://www.cni.dev/docs/spec/.
package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containernetworking/cni/libcni"

	"github.com/gantry-cri/gantry/internal/id"
)

// Options are what a Manager works with.
type Options struct {
	Settings
	StateDir string       // the journal and the plugins' cache; must survive a reboot
	Log      *slog.Logger // nil discards
}

// Settings are the options that Configure can change.
type Settings struct {
	ConfDir string        // watched for network configurations; need not exist
	BinDirs []string      // searched for plugins, in this order
	Timeout time.Duration // bounds one ADD, DEL or CHECK; 0 means two minutes
}

const defaultTimeout = 2 * time.Minute

// Manager attaches pods to the network. Operations on different pods run in
// parallel, those on one pod one after the other.
type Manager struct {
	cache    string                   // the plugins' directory for results
	settings atomic.Pointer[Settings] // never nil

	log     *slog.Logger
	journal journal
	watcher *watcher // nil if the node has no inotify instance left

	scanning sync.Mutex                  // guards writing scan
	scan     atomic.Pointer[scan]        // never nil after New
	status   atomic.Pointer[statusReply] // written by keepStatus
	scanned  chan struct{}               // wakes keepStatus

	mu          sync.Mutex             // guards attachments
	attachments map[id.Pod]*attachment // of every pod with a record or an operation
	damaged     []string               // see Status; never changes

	// plugins is held for reading while plugins run for a pod, and for writing
	// while they collect garbage: they would take what an ADD has just made for
	// garbage.
	plugins sync.RWMutex

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	tasks  sync.WaitGroup
}

// Status is what there is to tell about the network, for people.
type Status struct {
	Network  string   // the name of the network that new pods get; "" if there is none
	ConfFile string   // the file that defines it
	Problems []string // configuration files that can't be used, each with its reason
	Pending  []id.Pod // pods whose DEL failed and is being retried
	Damaged  []string // journal records that could not be read, where they were put aside
}

// New loads the journal and the configuration, and watches the latter. Nothing
// is done for the pods of the journal before Recover. The caller must Close it.
func New(opts Options) (*Manager, error) {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	m := &Manager{
		cache:       filepath.Join(opts.StateDir, "cache"),
		log:         opts.Log,
		scanned:     make(chan struct{}, 1),
		attachments: map[id.Pod]*attachment{},
	}
	m.set(opts.Settings)
	m.ctx, m.cancel = context.WithCancel(context.Background())
	var err error
	if m.journal, err = newJournal(opts.StateDir); err != nil {
		return nil, fmt.Errorf("network: %w", err)
	}
	if err := m.loadJournal(); err != nil {
		return nil, fmt.Errorf("network: %w", err)
	}
	m.rescan()
	if m.watcher, err = newWatcher(opts.watched()); err == nil {
		m.tasks.Go(func() { m.watcher.run(m.rescan) })
	} else {
		m.log.Warn("CNI configuration can't be watched; it is read again from time to time", "dir", opts.ConfDir, "interval", tickInterval, "err", err)
	}
	m.tasks.Go(m.keepStatus)
	return m, nil
}

// Configure changes the settings: of operations that begin later, on whatever
// pod, and of the network for new pods, at once. No operation waits for it.
func (m *Manager) Configure(s Settings) {
	m.set(s)
	m.rescan()
	m.wakeStatus() // the plugins may be others of the same names
	if m.watcher != nil {
		m.watcher.follow(s.watched())
	}
}

func (m *Manager) set(s Settings) {
	if s.Timeout == 0 {
		s.Timeout = defaultTimeout
	}
	m.settings.Store(&s)
}

// watched are the directories in which changes matter.
func (s Settings) watched() []string { return append([]string{s.ConfDir}, s.BinDirs...) }

// Close ends the watch and the background work, killing the plugins it runs.
// It does not detach pods. No other method may be called after it.
func (m *Manager) Close() error {
	m.mu.Lock() // see retryDel
	m.cancel()
	m.mu.Unlock()
	var err error
	if m.watcher != nil {
		err = m.watcher.close()
	}
	m.tasks.Wait()
	return err
}

// cni returns libcni for one run of plugins.
func (m *Manager) cni(r *runner) *libcni.CNIConfig {
	return libcni.NewCNIConfigWithCacheDir(m.settings.Load().BinDirs, m.cache, r)
}

// bounded returns a context for one CNI operation.
func (m *Manager) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	d := m.settings.Load().Timeout
	return context.WithTimeoutCause(ctx, d, fmt.Errorf("not done within %v", d))
}

// rescan reads the configuration directory again.
func (m *Manager) rescan() {
	m.scanning.Lock()
	defer m.scanning.Unlock()
	from := m.settings.Load()
	found := scanDir(from.ConfDir, from.BinDirs)
	old := m.scan.Load()
	if old != nil && old.same(found) {
		return
	}
	m.scan.Store(&found)
	m.wakeStatus()
	for _, p := range found.problems {
		m.log.Warn("CNI configuration file can't be used", "dir", from.ConfDir, "problem", p)
	}
	if found.unusable != nil {
		m.log.Warn("pods can't be attached to the network", "err", found.unusable)
	} else {
		m.log.Info("CNI network for new pods", "network", found.network.list.Name, "file", found.network.file)
	}
}

func (m *Manager) wakeStatus() {
	select {
	case m.scanned <- struct{}{}:
	default:
	}
}

// same reports whether two scans found the same.
func (s *scan) same(t scan) bool {
	words := func(err error) string {
		if err == nil {
			return ""
		}
		return err.Error()
	}
	sameNetwork := s.network == nil && t.network == nil ||
		s.network != nil && t.network != nil && s.network.file == t.network.file && s.network.conf == t.network.conf
	return sameNetwork && slices.Equal(s.problems, t.problems) && words(s.unusable) == words(t.unusable)
}

// Lookup returns what a pod was given, if it is attached. It never waits.
func (m *Manager) Lookup(pod id.Pod) (Result, bool) {
	m.mu.Lock()
	a := m.attachments[pod]
	m.mu.Unlock()
	if a == nil {
		return Result{}, false
	}
	r := a.rec.Load()
	if !r.attached() {
		return Result{}, false
	}
	return r.result(), true
}

// Ready returns nil if a pod could be attached now, else why not, with kind
// Unavailable. It never waits: it tells what is known.
func (m *Manager) Ready() error {
	s := m.scan.Load()
	if s.unusable != nil {
		return s.unusable
	}
	return m.statusOf(s.network)
}

// Status tells details. It never waits.
func (m *Manager) Status() Status {
	s := m.scan.Load()
	out := Status{Problems: s.problems, Damaged: m.damaged}
	if s.network != nil {
		out.Network, out.ConfFile = s.network.list.Name, filepath.Join(m.settings.Load().ConfDir, s.network.file)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for pod, a := range m.attachments {
		if r := a.rec.Load(); r != nil && r.Doomed {
			out.Pending = append(out.Pending, pod)
		}
	}
	slices.Sort(out.Pending)
	return out
}

var errClosed = errors.New("network: the daemon is ending")
