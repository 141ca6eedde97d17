package testenv

import (
	"fmt"
	"slices"
	"time"
)

// state is what exists on the machine because of an environment: for each kind
// of thing the names of the things.
type state map[string][]string

func (e *Env) state() state {
	return state{
		"process":       e.processes(),
		"mount":         e.mounts(),
		"interface":     e.links(),
		"address lease": e.leases(),
		"firewall rule": e.firewall(),
		"cgroup":        e.cgroups(),
		"unit":          e.units(),
		"file":          e.files(),
	}
}

// added lists what s holds and before does not, as "kind: name".
func (s state) added(before state) []string {
	var list []string
	for kind, names := range s {
		for _, name := range names {
			if !slices.Contains(before[kind], name) {
				list = append(list, fmt.Sprintf("%s: %s", kind, name))
			}
		}
	}
	slices.Sort(list)
	return list
}

// CheckLeaks fails the test for each thing that exists now and did not when the
// environment was new, in the daemon too: goroutines and descriptors. Call it
// when no pod is left. What the daemon removes in the background gets a few seconds.
func (e *Env) CheckLeaks() {
	e.t.Helper()
	if Peer() {
		return
	}
	for _, leak := range e.settle(5*time.Second, func() []string { return e.state().added(e.before) }) {
		e.t.Errorf("leaked %s", leak)
	}
	e.checkInsides()
}

// Leaks returns what CheckLeaks would complain about now, without waiting.
func (e *Env) Leaks() []string { return e.state().added(e.before) }

// checkAfterStop fails the test for each process and mount that outlives a
// daemon which had no pods left.
func (e *Env) checkAfterStop() {
	e.t.Helper()
	if Peer() || e.t.Failed() {
		return
	}
	left := e.settle(5*time.Second, func() []string {
		return state{"process": e.processes(), "mount": e.podMounts()}.added(nil)
	})
	for _, leak := range left {
		e.t.Errorf("left after the daemon's end: %s", leak)
	}
}

// settle looks until nothing is left, or limit is over, and returns what is left.
func (e *Env) settle(limit time.Duration, look func() []string) []string {
	deadline := time.Now().Add(limit)
	for {
		left := look()
		if len(left) == 0 || time.Now().After(deadline) {
			return left
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// CheckNothingLeft fails the test for each thing of the environment that is on
// the machine, images and places that last aside. No daemon runs any more.
func (e *Env) CheckNothingLeft() {
	e.t.Helper()
	for _, leak := range e.settle(5*time.Second, func() []string { return e.state().added(nil) }) {
		e.t.Errorf("left %s", leak)
	}
}
