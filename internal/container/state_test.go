package container

import (
	"testing"
	"time"

	"github.com/gantry-cri/gantry/internal/errkind"
	"github.com/gantry-cri/gantry/internal/monitor"
)

func TestTransitions(t *testing.T) {
	t0, t1, t2 := time.Unix(1, 0), time.Unix(2, 0), time.Unix(3, 0)
	created := Status{State: Created, PID: 5}
	running, err := created.started(t0)
	if err != nil || running.State != Running || running.StartedAt != t0 || running.PID != 5 {
		t.Fatalf("started: %+v, %v", running, err)
	}
	if _, err := running.started(t1); errkind.Of(err) != errkind.Precondition {
		t.Errorf("starting twice: %v", err)
	}
	for _, tc := range []struct {
		exit   monitor.Exit
		reason string
	}{
		{monitor.Exit{Code: 0, FinishedAt: t1}, "Completed"},
		{monitor.Exit{Code: 3, FinishedAt: t1}, "Error"},
		{monitor.Exit{Code: 137, Signal: 9, FinishedAt: t1}, "Error"},
		{monitor.Exit{Code: 137, Signal: 9, OOMKilled: true, FinishedAt: t1}, "OOMKilled"},
	} {
		got := running.exited(tc.exit)
		if got.State != Exited || got.Reason != tc.reason || got.ExitCode != tc.exit.Code || got.FinishedAt != t1 || got.PID != 0 || got.StartedAt != t0 {
			t.Errorf("exited(%+v) = %+v", tc.exit, got)
		}
		if again := got.exited(monitor.Exit{Code: 77, FinishedAt: t2}); again != got {
			t.Errorf("a second exit changed %+v to %+v", got, again)
		}
		if lost := got.lost(t2); lost != got {
			t.Errorf("the monitor's loss changed an exit to %+v", lost)
		}
		if _, err := got.started(t2); errkind.Of(err) != errkind.Precondition {
			t.Errorf("starting after the exit: %v", err)
		}
	}
	if got := created.exited(monitor.Exit{Code: 137, FinishedAt: t1}); got.Message == "" || got.State != Exited {
		t.Errorf("an end before the start says so: %+v", got)
	}
	if got := running.lost(t1); got.Reason != "MonitorLost" || got.ExitCode != 137 || got.Message == "" {
		t.Errorf("lost: %+v", got)
	}
}
