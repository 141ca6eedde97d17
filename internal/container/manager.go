package container

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gantry-cri/gantry/internal/errkind"
	"github.com/gantry-cri/gantry/internal/flight"
	"github.com/gantry-cri/gantry/internal/id"
	"github.com/gantry-cri/gantry/internal/index"
	"github.com/gantry-cri/gantry/internal/monitor"
)

// Manager knows every container of the daemon. Looking up and listing never
// waits for an operation.
type Manager struct {
	env      *Environment
	settings atomic.Pointer[Settings] // never nil

	index *index.Index[id.Container, *Container]
	pods  podTable
	ops   flight.Group

	clamped sync.Once // an OOM score was raised, and that was told
}

// NewManager returns a manager without containers.
func NewManager(env *Environment) *Manager {
	m := &Manager{env: env, index: index.New[id.Container, *Container]("container")}
	m.Configure(env.Settings)
	return m
}

// Configure changes the settings of what begins later.
func (m *Manager) Configure(s Settings) { m.settings.Store(&s) }

// Find returns the container whose id is or unambiguously begins with s.
func (m *Manager) Find(s string) (*Container, error) {
	c, err := m.index.Find(s)
	if err == nil && !c.visible() {
		return nil, errkind.Errorf(errkind.NotFound, "container %q not found", s)
	}
	return c, err
}

// List returns the containers that keep accepts (all for nil), oldest first.
func (m *Manager) List(keep func(*Container) bool) []*Container {
	return m.index.Sorted(
		func(c *Container) int64 { return c.Record.CreatedAt.UnixNano() },
		func(c *Container) bool { return c.visible() && (keep == nil || keep(c)) })
}

// OfPod returns the containers of one pod, oldest first.
func (m *Manager) OfPod(pod id.Pod) []*Container {
	return m.pods.of(pod)
}

// Exited takes the exit that a monitor reports. A container that is not (or no
// longer) known is none of its business.
func (m *Manager) Exited(ctr id.Container, e monitor.Exit) {
	if c, ok := m.index.Exact(ctr); ok {
		if e.LogLost > 0 {
			c.log.Warn("output of the container is lost: its log could not be written", "log", c.Record.LogPath, "bytes_lost", e.LogLost)
		}
		c.markExited(func(s Status) Status { return s.exited(e) })
	}
}

// MonitorLost ends the containers of a pod whose monitor died: nobody reads
// their output or learns their exit code any more.
func (m *Manager) MonitorLost(pod id.Pod) {
	for _, c := range m.OfPod(pod) {
		c.settleWithoutMonitor(time.Now())
	}
}

// Start starts a created container. A container that runs already is no
// error if this start is a retry of the one that did it.
func (m *Manager) Start(ctx context.Context, ctr string) error {
	c, err := m.Find(ctr)
	if err != nil {
		return err
	}
	_, err = flight.Do(ctx, &m.ops, "start container "+string(c.Record.ID), m.limit(), func(ctx context.Context) (struct{}, error) {
		return struct{}{}, c.start(ctx)
	})
	return err
}

// Remove removes a container; a running one is killed first. A container
// that does not exist is no error (CRI: RemoveContainer is idempotent).
func (m *Manager) Remove(ctx context.Context, c *Container) error {
	_, err := flight.Do(ctx, &m.ops, "remove container "+string(c.Record.ID), m.limit(), func(ctx context.Context) (struct{}, error) {
		if err := c.remove(ctx); err != nil {
			return struct{}{}, err
		}
		m.drop(c)
		c.tellDeleted()
		return struct{}{}, nil
	})
	return err
}

// limit bounds one whole operation: a few runtime calls and the kill's waits.
func (m *Manager) limit() time.Duration {
	s := m.settings.Load()
	return 4*s.RuntimeTimeout + s.CreateTimeout
}
