package main

import (
	"testing"
	"time"
)

func TestWatchdogPeriod(t *testing.T) {
	for _, tt := range []struct {
		usec, pid string
		want      time.Duration
	}{
		{"", "", 0},
		{"30000000", "", 30 * time.Second},
		{"30000000", "7", 30 * time.Second},
		{"30000000", "8", 0}, // another process's
		{"0", "7", 0},
		{"-1", "", 0},
		{"x", "", 0},
	} {
		getenv := func(name string) string {
			return map[string]string{"WATCHDOG_USEC": tt.usec, "WATCHDOG_PID": tt.pid}[name]
		}
		if got := watchdogPeriod(getenv, 7); got != tt.want {
			t.Errorf("WATCHDOG_USEC=%q WATCHDOG_PID=%q: %s, want %s", tt.usec, tt.pid, got, tt.want)
		}
	}
}
