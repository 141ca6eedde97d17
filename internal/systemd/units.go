package systemd

import (
	"context"

	"github.com/godbus/dbus/v5"
)

// Scope is a unit around a process that runs already.
type Scope struct {
	Name        string // NAME.scope
	Slice       string // the slice that it is in, by its name
	PID         int
	Description string
}

// property is one property of a unit, in the bus's form (sv).
type property struct {
	Name  string
	Value dbus.Variant
}

// auxiliary is a unit to be made along with another, in the bus's form: sa(sv).
type auxiliary struct {
	Name       string
	Properties []property
}

func prop(name string, value any) property { return property{name, dbus.MakeVariant(value)} }

// accounting makes systemd give the unit's cgroup the controllers that count.
func accounting() []property {
	return []property{prop("CPUAccounting", true), prop("MemoryAccounting", true), prop("TasksAccounting", true)}
}

// StartSlice makes the slice of this name, and those that it is in, unless
// they exist.
func (c *Client) StartSlice(ctx context.Context, name string) error {
	return c.do(ctx, "start", name, func(ctx context.Context, s *session) error {
		properties := append(accounting(), prop("Description", "Gantry: pods"), prop("DefaultDependencies", false))
		err := s.run(ctx, "StartTransientUnit", name, modeReplace, properties, []auxiliary{})
		if is(err, unitExists) {
			return nil
		}
		return err
	})
}

// StartScope moves a process into a scope of its own. The scope goes away with
// its last process, also if that failed.
func (c *Client) StartScope(ctx context.Context, scope Scope) error {
	return c.do(ctx, "start", scope.Name, func(ctx context.Context, s *session) error {
		properties := append(accounting(),
			prop("Description", scope.Description),
			prop("Slice", scope.Slice),
			prop("PIDs", []uint32{uint32(scope.PID)}),
			prop("Delegate", true),
			prop("CollectMode", "inactive-or-failed"),
			prop("DefaultDependencies", false)) // what a shutdown ends first is the kubelet's to say
		return s.run(ctx, "StartTransientUnit", scope.Name, modeReplace, properties, []auxiliary{})
	})
}

// Stop ends a unit: what runs in it is killed. One that does not exist is no
// error.
func (c *Client) Stop(ctx context.Context, name string) error {
	return c.do(ctx, "stop", name, func(ctx context.Context, s *session) error {
		err := s.run(ctx, "StopUnit", name, modeReplace)
		if is(err, noSuchUnit) {
			return nil
		}
		return err
	})
}
