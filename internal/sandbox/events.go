package sandbox

import (
	"time"

	"github.com/gantry-cri/gantry/internal/container"
	"github.com/gantry-cri/gantry/internal/events"
	"github.com/gantry-cri/gantry/internal/id"
)

// Event is what happened to a pod or to a container of it, with the state of
// both at that moment: at least the state that the event is about.
//
// A pod is Created and Started when it becomes ready, Stopped once nothing of
// it runs or its pause container has ended, Deleted when it is in no list any
// more.
type Event struct {
	Kind       events.Kind
	Subject    string    // a container's id, or the pod's
	At         time.Time // later than that of every earlier event
	Pod        *Pod
	Status     Status
	Containers []ContainerAt // of the pod, oldest first; a deleted one is not among them
}

// ContainerAt is a container as it was at the time of an event.
type ContainerAt struct {
	Container *container.Container
	Status    container.Status
}

// Subscribe returns a subscription to the events of every pod and container. It
// begins with the ends that nobody has heard, because no daemon ran or nobody
// listened, of what still exists: those happen by themselves, and who missed
// them would not look again soon. It must be closed.
func (m *Manager) Subscribe() *events.Subscription[Event] { return m.events.Subscribe() }

// EndEvents ends every subscription, for good.
func (m *Manager) EndEvents() { m.events.Close() }

// tell hands an event to the subscribers. It does not wait.
func (m *Manager) tell(p *Pod, kind events.Kind, subject string) {
	event := func(at time.Time) Event {
		e := Event{Kind: kind, Subject: subject, At: at, Pod: p, Status: p.Status()}
		for _, c := range m.opts.Containers.OfPod(p.Record.ID) {
			e.Containers = append(e.Containers, ContainerAt{c, c.Status()})
		}
		return e
	}
	switch kind {
	case events.Stopped:
		m.events.PublishOrKeep(subject, event)
	case events.Deleted:
		m.events.Forget(subject)
		m.events.Publish(event)
	default:
		m.events.Publish(event)
	}
}

// tellOf returns what the pod's containers tell their events to.
func (m *Manager) tellOf(p *Pod) func(events.Kind, id.Container) {
	return func(kind events.Kind, ctr id.Container) { m.tell(p, kind, string(ctr)) }
}

// appear makes a pod ready and findable, and tells it.
func (m *Manager) appear(p *Pod, st Status) error {
	p.order.Lock()
	defer p.order.Unlock()
	if err := p.publishReady(st); err != nil {
		return err
	}
	m.insert(p)
	p.tell(events.Created)
	p.tell(events.Started)
	return nil
}

// disappear takes a pod out of the lists, and tells it.
func (m *Manager) disappear(p *Pod) {
	p.order.Lock()
	defer p.order.Unlock()
	m.forget(p)
	p.tell(events.Deleted)
}

// tellStopLocked tells the pod's end, once. It needs order held.
func (p *Pod) tellStopLocked(st State) {
	if st != Broken && st != Stopped || p.stopTold {
		return
	}
	p.stopTold = true
	p.tell(events.Stopped)
}
