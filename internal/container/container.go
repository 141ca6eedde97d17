// Package container owns the life of one container: it is created, started,
// stopped and removed here, and its state is kept here. It knows of its pod
// only what Pod says.
package container

import (
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	rspec "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/internal/cgroup"
	"github.com/gantry-cri/gantry/internal/events"
	"github.com/gantry-cri/gantry/internal/id"
	"github.com/gantry-cri/gantry/internal/monitor"
	"github.com/gantry-cri/gantry/internal/node"
	"github.com/gantry-cri/gantry/internal/oci"
	"github.com/gantry-cri/gantry/internal/selinux"
	"github.com/gantry-cri/gantry/internal/storage"
)

// Pod is what a container needs of its sandbox. It stays valid as long as the
// sandbox exists.
type Pod struct {
	ID           id.Pod
	Dir          string // <run root>/pods/<id>
	Config       *runtimeapi.PodSandboxConfig
	Runtime      *oci.Runtime
	CgroupParent string         // the cgroup path under which every container of the pod gets its own
	Cgroups      cgroup.Manager // who makes those
	Hostname     string
	// UserNS is the pod's own user namespace; nil if it has none.
	UserNS *oci.UserNamespace
	// SELinux are the labels of the pod.
	SELinux selinux.Labels
	// Abilities are the runtime's on this node.
	Abilities func() oci.Abilities
	// Monitor returns the pod's live monitor, or an error that says why there is
	// none: of kind Unavailable if there may be one later.
	Monitor func() (*monitor.Client, error)
	// PausePID is the pause container's init, which holds the pod's namespaces.
	PausePID func() int
	// Tell hands an event about a container of the pod to whoever listens. It
	// does not wait.
	Tell func(events.Kind, id.Container)
}

// Admit lets the root of the pod's user namespace pass through a directory of
// the pod's on the way to what is mounted in its containers, and nobody else.
func (p *Pod) Admit(dir string) error {
	if p.UserNS == nil {
		return nil
	}
	_, gid := p.UserNS.Root()
	if err := os.Chown(dir, 0, int(gid)); err != nil {
		return err
	}
	return os.Chmod(dir, 0o710)
}

// RootFSOptions are what the pod's user namespace asks of a root filesystem.
func (p *Pod) RootFSOptions() storage.RootFSOptions {
	if p.UserNS == nil {
		return storage.RootFSOptions{}
	}
	return storage.RootFSOptions{IDs: storage.IDMap{
		UIDs: storage.IDRange(p.UserNS.UIDs), GIDs: storage.IDRange(p.UserNS.GIDs),
	}}
}

// Container is one container. Its record never changes after creation; what
// changes is in its Status.
type Container struct {
	Record Record

	pod *Pod
	mgr *Manager
	env *Environment // the manager's
	log *slog.Logger

	// op serialises Start, Update, the clean-up after the exit, and Remove.
	op sync.Mutex

	// order is held from a transition until its event is told. It is taken
	// before mu, and guards the two below.
	order    sync.Mutex
	holding  bool // an exit is not told yet: what it follows is not
	heldExit bool // there was one

	mu     sync.Mutex // guards transitions of status and phase on disk
	status atomic.Pointer[Status]
	// resources are the limits that hold; changed with op held.
	resources atomic.Pointer[runtimeapi.LinuxContainerResources]
	gone      chan struct{} // closed when the container has exited
	cleaned   chan struct{} // closed when the runtime has forgotten it

	made     atomic.Bool            // the creation is complete, or was when an earlier daemon ended
	stopSent atomic.Bool            // the stop signal was sent
	waiting  atomic.Pointer[string] // what the init executed before Start: the runtime; nil if an earlier daemon started it

	labels selinux.Labels // set while it is being created

	logTrouble atomic.Pointer[monitor.LogState] // nil while the log can be written
}

// Environment is what all containers of a daemon share.
type Environment struct {
	Storage *storage.Store
	Node    node.Facts
	Log     *slog.Logger
	// Settings are those of the beginning; Configure changes them.
	Settings Settings
	// ExecWait is the program that waits for the processes of execs.
	ExecWait string
	// StandIn is the program that stands in for the init of a container that
	// runs in its pod's sandbox.
	StandIn string
	// AppArmorDefault is the AppArmor profile used for RuntimeDefault.
	AppArmorDefault string
	// AppArmor refuses a profile that the kernel has not loaded.
	AppArmor interface{ Require(profile string) error }
	// SELinux makes the containers' labels of their pods'.
	SELinux *selinux.Node
	// Devices adds the CDI devices that a request names to a specification.
	Devices interface {
		Inject(*rspec.Spec, *runtimeapi.ContainerConfig) error
	}
	// Hooks adds the node's OCI hooks to a specification.
	Hooks interface {
		Apply(spec *rspec.Spec, bindMounts bool)
	}
}

// Settings are what can change while the daemon runs. What a container is
// created with it keeps: its journal, its limits, its profile.
type Settings struct {
	// CreateTimeout bounds RUNTIME create.
	CreateTimeout time.Duration
	// RuntimeTimeout bounds every other call of a runtime.
	RuntimeTimeout time.Duration
	// ExecOutputMax bounds each of the two outputs that ExecSync keeps, in bytes.
	ExecOutputMax int
	// LogSizeMax bounds a container's log, in bytes; not positive: unbounded.
	LogSizeMax int64
	// Journal is the socket of a journald that gets all output too; "" is none.
	Journal string
	// PidsLimit bounds the processes of a container; not positive: unbounded.
	PidsLimit int64
	// SeccompProfile is the path of the profile used for RuntimeDefault; "" is the built-in one.
	SeccompProfile string
}

// ID is the container's id.
func (c *Container) ID() id.Container { return c.Record.ID }

// PodID is the id of the container's sandbox.
func (c *Container) PodID() id.Pod { return c.Record.Pod }

// Status is the container's state at this moment. It never waits.
func (c *Container) Status() Status { return *c.status.Load() }

// visible reports whether the container's creation is complete. One whose
// creation failed or was interrupted never is, though it may have an exit.
func (c *Container) visible() bool { return c.made.Load() && c.Status().State != 0 }

// Config is the request that the container was created from. Read only.
func (c *Container) Config() *runtimeapi.ContainerConfig { return c.Record.Config.Message }

// Gone is closed when the container has exited.
func (c *Container) Gone() <-chan struct{} { return c.gone }

func (c *Container) settings() *Settings { return c.mgr.settings.Load() }

func (m *Manager) newContainer(rec Record, pod *Pod, st Status) *Container {
	c := &Container{
		Record:  rec,
		pod:     pod,
		mgr:     m,
		env:     m.env,
		log:     m.env.Log.With("container", rec.ID, "pod", rec.Pod),
		gone:    make(chan struct{}),
		cleaned: make(chan struct{}),
		holding: st.State == 0, // until its creation is told
	}
	c.status.Store(&st)
	c.made.Store(st.State != 0)
	c.resources.Store(rec.Resources.Message)
	if st.State == Exited {
		close(c.gone)
	}
	return c
}
