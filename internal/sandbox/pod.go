// Package sandbox owns the life of a pod: its directory, cgroup, network,
// monitor and pause container, from RunPodSandbox to RemovePodSandbox, and the
// recovery of all pods when the daemon starts.
package sandbox

import (
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"sync"
	"sync/atomic"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/internal/container"
	"github.com/gantry-cri/gantry/internal/errkind"
	"github.com/gantry-cri/gantry/internal/events"
	"github.com/gantry-cri/gantry/internal/id"
	"github.com/gantry-cri/gantry/internal/monitor"
	"github.com/gantry-cri/gantry/internal/oci"
)

// State is where a pod is in its life:
//
//	Run ──> Ready ──────────────> Stopping ──> Stopped ──> (removed)
//	          │  StopPodSandbox        ▲
//	          └── pause or monitor ends: Broken ──┘
//
// A pod that is being run is in no list. CRI knows only READY (Ready) and
// NOTREADY (all others).
type State int

// The states. The zero value is none of them.
const (
	Ready    State = iota + 1
	Broken         // the pause container or the monitor ended; only Stop and Remove are possible
	Stopping       // StopPodSandbox has begun; it is repeated until it is done
	Stopped        // nothing of the pod runs; its record remains
)

func (s State) String() string {
	switch s {
	case Ready:
		return "ready"
	case Broken:
		return "broken"
	case Stopping:
		return "stopping"
	case Stopped:
		return "stopped"
	}
	return fmt.Sprintf("State(%d)", int(s))
}

// next is the transition table: whether a pod in state s may become to.
// Stopped is final.
func (s State) next(to State) bool {
	switch to {
	case Broken:
		return s == Ready
	case Stopping:
		return s == Ready || s == Broken || s == Stopping
	case Stopped:
		return s == Stopping
	}
	return false
}

// Status is the part of a pod that changes. A value is never modified after
// it was published.
type Status struct {
	State    State
	PausePID int          // 0 once it has ended
	IPs      []netip.Addr // primary first; empty with the node's network
	Reason   string       // why a pod is Broken
}

// Pod is one pod sandbox. Its record never changes after creation.
type Pod struct {
	Record Record

	dir     string
	runtime *oci.Runtime
	log     *slog.Logger
	host    container.Pod // what the pod's containers are given
	pause   Pause         // that Run makes the pod with; not known of a recovered pod

	// op serialises Stop and Remove; creations hold it for reading, so that
	// Stop waits for the ones under way.
	op sync.RWMutex

	// order is held from a transition until its event is told, so that events
	// come in the order of transitions. It is taken before mu.
	order    sync.Mutex
	tell     func(events.Kind) // about the pod itself; it does not wait
	stopTold bool              // guarded by order

	mu        sync.Mutex      // guards transitions of status, phase on disk, and mon
	mon       *monitor.Client // nil while there is none
	status    atomic.Pointer[Status]
	resources atomic.Pointer[Resources] // changed with mu held
	pauseGone chan struct{}             // closed when the pause container has ended
	ended     sync.Once                 // closes pauseGone
}

// ID is the pod's id.
func (p *Pod) ID() id.Pod { return p.Record.ID }

// Status is the pod's state at this moment. It never waits.
func (p *Pod) Status() Status { return *p.status.Load() }

// Config is the request that the pod was made from. Read only.
func (p *Pod) Config() *runtimeapi.PodSandboxConfig { return p.Record.Config.Message }

// Dir is the pod's directory.
func (p *Pod) Dir() string { return p.dir }

// HostNetwork reports whether the pod uses the node's network namespace.
func (p *Pod) HostNetwork() bool { return hostNetwork(p.Config()) }

// userns is the pod's user namespace; nil is the node's. The request was
// validated before the pod was made.
func (p *Pod) userns() *oci.UserNamespace {
	u, err := oci.PodUserNamespace(namespaces(p.Config()))
	if err != nil {
		p.log.Error("user namespace of a pod", "err", err)
	}
	return u
}

func (p *Pod) netns() string  { return filepath.Join(p.dir, netnsFile) }
func (p *Pod) bundle() string { return filepath.Join(p.dir, bundleDir) }

// Monitor returns the live connection to the pod's monitor. The error is of
// kind Unavailable while the monitor may still answer, else of kind Precondition.
func (p *Pod) Monitor() (*monitor.Client, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.mon != nil:
		return p.mon, nil
	case p.Status().State == Ready:
		return nil, errkind.Errorf(errkind.Unavailable, "the monitor of pod %s does not answer", p.Record.ID)
	}
	return nil, errkind.Errorf(errkind.Precondition, "pod %s has no monitor any more", p.Record.ID)
}

func (p *Pod) setMonitor(c *monitor.Client) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mon = c
}

// transition moves the pod to state to, on disk first, then in memory, and
// tells it; it reports false, with nothing changed, when the pod's state does
// not allow it. A state that can't be recorded (the disk is full) is taken all
// the same: the truth on the node matters more than the file, what frees a disk
// must work on a full one, and the next daemon sees what became of the monitor.
func (p *Pod) transition(to State, reason string) bool {
	p.order.Lock()
	defer p.order.Unlock()
	if !p.move(to, reason) {
		return false
	}
	p.tellStopLocked(to)
	return true
}

// move is transition without telling.
func (p *Pod) move(to State, reason string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	st := p.Status()
	if !st.State.next(to) {
		return false
	}
	st.State = to
	if reason != "" {
		st.Reason = reason
	}
	if to == Stopped {
		st.PausePID = 0
	}
	if err := p.writePhase(st); err != nil {
		p.log.Error("state not recorded", "state", to, "err", err)
	}
	p.status.Store(&st)
	return true
}
