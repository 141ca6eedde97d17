package sandbox

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gantry-cri/gantry/internal/cgroup"
	"github.com/gantry-cri/gantry/internal/container"
	"github.com/gantry-cri/gantry/internal/errkind"
	"github.com/gantry-cri/gantry/internal/events"
	"github.com/gantry-cri/gantry/internal/flight"
	"github.com/gantry-cri/gantry/internal/id"
	"github.com/gantry-cri/gantry/internal/index"
	"github.com/gantry-cri/gantry/internal/network"
	"github.com/gantry-cri/gantry/internal/node"
	"github.com/gantry-cri/gantry/internal/oci"
	"github.com/gantry-cri/gantry/internal/programs"
	"github.com/gantry-cri/gantry/internal/selinux"
	"github.com/gantry-cri/gantry/internal/storage"
	"github.com/gantry-cri/gantry/internal/systemd"
)

// Network is what a pod needs of package network.
type Network interface {
	Add(context.Context, network.Pod) (network.Result, error)
	Del(context.Context, id.Pod) error
}

// Systemd is what a pod needs of package systemd where that manages cgroups.
type Systemd interface {
	StartSlice(ctx context.Context, name string) error
	StartScope(ctx context.Context, s systemd.Scope) error
	Stop(ctx context.Context, unit string) error
}

// AppArmor refuses a profile that the kernel has not loaded.
type AppArmor interface {
	Require(profile string) error
}

// Options are what a Manager works with.
type Options struct {
	RunRoot         string
	Programs        programs.Paths
	Node            node.Facts
	Network         Network
	Containers      *container.Manager
	Storage         *storage.Store
	Cgroups         cgroup.Manager // of new pods
	Systemd         Systemd        // for pods whose cgroups it manages
	CgroupParent    string         // of pods that bring none: each gets <CgroupParent>/<pod id>
	AppArmorDefault string         // the AppArmor profile of RuntimeDefault
	AppArmor        AppArmor
	SELinux         *selinux.Node
	FindImage       FindImage
	Settings        Settings // those of the beginning; Configure changes them
	// NoUserNamespaces is why no root filesystem can be made for a user
	// namespace on this node; nil if one can.
	NoUserNamespaces error
	Log              *slog.Logger
}

// FindImage finds an image by its name, in the store or else in its registry.
type FindImage func(ctx context.Context, name string) (storage.Image, error)

// Settings are what can change while the daemon runs. What a pod is made with
// it keeps: its runtime, its pause image, its profile.
type Settings struct {
	Runtimes       map[string]*oci.Runtime // by handler name; never changed
	DefaultRuntime string                  // the handler of pods that name none; one of Runtimes
	CreateTimeout  time.Duration           // bounds RUNTIME create
	RuntimeTimeout time.Duration           // bounds every other call of a runtime
	EventQueue     int                     // events that a later subscriber may be behind
	SeccompProfile string                  // path of the profile for RuntimeDefault; "" is the built-in one
	Pause          Pause
}

// Pause is the image of pause containers, and its command.
type Pause struct {
	Image   string   // "" is the built-in pause
	Command []string // none: the image's own
}

// Manager knows every pod of the daemon. Looking up and listing never waits
// for an operation.
type Manager struct {
	opts     Options
	settings atomic.Pointer[Settings] // never nil
	log      *slog.Logger

	index *index.Index[id.Pod, *Pod]
	ops   flight.Group

	mu         sync.Mutex        // guards identities
	identities map[Identity]*Pod // of the pods in index

	events *events.Hub[Event]
	pins   pins
	// undoing are the pods that Recover has found half made.
	undoing sync.WaitGroup
	// monitorNode is the node as far as monitors' cgroups are concerned.
	monitorNode node.Facts
	damaged     quarantine // what Recover could not read
}

// New returns a manager without pods; Recover finds those of an earlier daemon.
func New(o Options) *Manager {
	m := &Manager{
		opts:        o,
		log:         o.Log,
		index:       index.New[id.Pod, *Pod]("pod sandbox"),
		identities:  make(map[Identity]*Pod),
		monitorNode: monitorHierarchies(o.Node),
		events:      events.NewHub[Event](o.Settings.EventQueue),
		pins:        pins{known: make(map[string]*oci.Runtime)},
	}
	m.Configure(o.Settings)
	return m
}

// Configure changes the settings of what begins later. Pods whose runtime has
// gone from them keep it.
func (m *Manager) Configure(s Settings) {
	m.settings.Store(&s)
	m.events.SetQueue(s.EventQueue)
}

// Find returns the pod whose id is or unambiguously begins with s.
func (m *Manager) Find(s string) (*Pod, error) { return m.index.Find(s) }

// List returns the pods that keep accepts (all for nil), oldest first.
func (m *Manager) List(keep func(*Pod) bool) []*Pod {
	return m.index.Sorted(func(p *Pod) int64 { return p.Record.CreatedAt.UnixNano() }, keep)
}

// Damaged names the records that could not be read; they are left where they are.
func (m *Manager) Damaged() []string { return m.damaged.names() }

// Runtimes lists the handlers that a pod can name.
func (m *Manager) Runtimes() map[string]*oci.Runtime { return m.settings.Load().Runtimes }

// DefaultRuntime is the runtime of pods that name no handler.
func (m *Manager) DefaultRuntime() *oci.Runtime {
	s := m.settings.Load()
	return s.Runtimes[s.DefaultRuntime]
}

func (m *Manager) runtime(handler string) (*oci.Runtime, error) {
	s := m.settings.Load()
	name := handler
	if name == "" {
		name = s.DefaultRuntime
	}
	rt, ok := s.Runtimes[name]
	if !ok {
		return nil, errkind.Errorf(errkind.Invalid, "runtime handler %q is not configured", name)
	}
	return rt, nil
}

// Abilities are what pods with the runtime rt can be asked for on this node.
func (m *Manager) Abilities(rt *oci.Runtime) oci.Abilities {
	return oci.Abilities{
		RecursiveReadOnly: m.opts.Node.MountAttributes && rt.RecursiveReadOnly(),
		IDMappedMounts:    m.opts.Node.MountAttributes && rt.IDMappedMounts(),
	}
}

// UserNamespaces returns why pods with the runtime rt can't have user
// namespaces, or nil; of kind Unsupported.
func (m *Manager) UserNamespaces(rt *oci.Runtime) error {
	switch {
	case rt.Sandboxed():
		return errkind.Errorf(errkind.Unsupported, "user namespaces: the sandbox of %s has one of its own", rt.Name())
	case m.opts.NoUserNamespaces != nil:
		return errkind.Errorf(errkind.Unsupported, "user namespaces do not work on this node: %w", m.opts.NoUserNamespaces)
	case !m.Abilities(rt).IDMappedMounts:
		return errkind.Errorf(errkind.Unsupported, "user namespaces need a runtime that maps the ids of mounts, and %s %s does not",
			rt.Name(), rt.Version())
	}
	return nil
}

func (m *Manager) podsDir() string { return filepath.Join(m.opts.RunRoot, "pods") }

// insert makes a pod findable.
func (m *Manager) insert(p *Pod) {
	m.mu.Lock()
	m.identities[p.Record.Identity()] = p
	m.mu.Unlock()
	m.index.Put(p.Record.ID, p)
}

func (m *Manager) forget(p *Pod) {
	m.index.Delete(p.Record.ID)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.identities[p.Record.Identity()] == p {
		delete(m.identities, p.Record.Identity())
	}
}

func (m *Manager) byIdentity(i Identity) (*Pod, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p, ok := m.identities[i]
	return p, ok
}

// limit bounds one whole operation on a pod.
func (m *Manager) limit() time.Duration {
	s := m.settings.Load()
	return 2*s.CreateTimeout + 6*s.RuntimeTimeout
}

// newPod returns the pod of a record, with nothing of it running.
func (m *Manager) newPod(rec Record, rt *oci.Runtime) *Pod {
	p := &Pod{
		Record:    rec,
		dir:       filepath.Join(m.podsDir(), string(rec.ID)),
		runtime:   rt,
		log:       m.log.With("pod", rec.ID),
		pauseGone: make(chan struct{}),
	}
	p.status.Store(&Status{})
	p.resources.Store(configured(rec.Config.Message))
	p.host = container.Pod{
		UserNS:       p.userns(),
		SELinux:      rec.SELinux,
		ID:           rec.ID,
		Dir:          p.dir,
		Config:       rec.Config.Message,
		Runtime:      rt,
		CgroupParent: rec.CgroupParent,
		Cgroups:      rec.Cgroups,
		Hostname:     rec.Hostname,
		Monitor:      p.Monitor,
		PausePID:     func() int { return p.Status().PausePID },
		Abilities:    func() oci.Abilities { return m.Abilities(rt) },
		Tell:         m.tellOf(p),
	}
	p.tell = func(kind events.Kind) { m.tell(p, kind, string(rec.ID)) }
	return p
}

// podsMode lets the roots of user namespaces pass through to their own pods'
// directories; nobody can list the pods, or enter another's.
const podsMode = 0o711

// CgroupManager is who makes the cgroups of new pods.
func (m *Manager) CgroupManager() cgroup.Manager { return m.opts.Cgroups }

// Prepare makes the run root's directories.
func (m *Manager) Prepare() error {
	if err := os.MkdirAll(m.podsDir(), podsMode); err != nil {
		return err
	}
	return os.Chmod(m.podsDir(), podsMode)
}
