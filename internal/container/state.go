package container

import (
	"fmt"
	"time"

	"github.com/gantry-cri/gantry/internal/errkind"
	"github.com/gantry-cri/gantry/internal/monitor"
)

// State is where a container is in its life:
//
//	           Start          init ends
//	Created ──────────> Running ──────────> Exited
//	   │                                      ▲
//	   └──────────────────────────────────────┘
//	              init ends before Start
//
// A container that is being created is in no list and has no State; one that
// is removed leaves the lists.
type State int

// The states. The zero value is none of them.
const (
	Created State = iota + 1
	Running
	Exited
)

func (s State) String() string {
	switch s {
	case Created:
		return "created"
	case Running:
		return "running"
	case Exited:
		return "exited"
	}
	return fmt.Sprintf("State(%d)", int(s))
}

// Status is the part of a container that changes. A value is never modified
// after it was published.
type Status struct {
	State      State
	PID        int       // of the init, in the node's PID namespace; 0 once it has exited
	StartedAt  time.Time // zero before Start
	FinishedAt time.Time // zero before the exit
	ExitCode   int       // 128 + the signal's number where a signal ended it
	Reason     string    // CamelCase, of an exited container: Completed, Error, OOMKilled, …
	Message    string    // for a human
}

// Reasons of an exit. OOMKilled is said of a container of which the kernel has
// killed a process for lack of memory, be it the init, a child or one of an
// exec, and however the container ended then: so do CRI-O and containerd, and
// an init that passes on what became of its child is the usual case.
//
// Reasons beyond Completed and Error, which follow from the code.
const (
	reasonCompleted   = "Completed"
	reasonError       = "Error"
	reasonOOMKilled   = "OOMKilled" // the CRI prescribes this word
	reasonMonitorLost = "MonitorLost"
	reasonStartError  = "StartError"
)

// started returns the status after a successful start.
func (s Status) started(at time.Time) (Status, error) {
	if s.State != Created {
		return s, errkind.Errorf(errkind.Precondition, "container is %s, only a created one can be started", s.State)
	}
	s.State, s.StartedAt = Running, at
	return s, nil
}

// exited returns the status after the init's end. The first exit is final: a
// second one changes nothing.
func (s Status) exited(e monitor.Exit) Status {
	if s.State == Exited {
		return s
	}
	s.State, s.PID = Exited, 0
	s.FinishedAt, s.ExitCode = e.FinishedAt, e.Code
	if s.StartedAt.IsZero() && s.Reason == "" {
		s.Message = "ended before it was started"
	}
	switch {
	case s.Reason != "":
	case e.OOMKilled:
		s.Reason = reasonOOMKilled
	case e.Code == 0:
		s.Reason = reasonCompleted
	default:
		s.Reason = reasonError
	}
	return s
}

// lost returns the status of a container whose exit nobody recorded.
func (s Status) lost(at time.Time) Status {
	if s.State == Exited {
		return s
	}
	s.Reason = reasonMonitorLost
	s.Message = "the pod's monitor ended while the container ran; its processes were killed and its exit code is unknown"
	return s.exited(monitor.Exit{Code: 137, Signal: 9, FinishedAt: at})
}
