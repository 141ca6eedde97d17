package container

import (
	"context"
	"fmt"

	"github.com/gantry-cri/gantry/internal/id"
	"github.com/gantry-cri/gantry/internal/monitor"
)

// ReopenLog makes the monitor open the log's path anew (after a rotation).
func (c *Container) ReopenLog(ctx context.Context) error {
	if err := c.requireRunning(); err != nil {
		return err
	}
	mon, err := c.pod.Monitor()
	if err != nil {
		return err
	}
	return mon.ReopenLog(ctx, c.Record.ID)
}

// LogChanged takes what a monitor says of a container's log: that it can't be
// written, or can again.
func (m *Manager) LogChanged(ctr id.Container, s monitor.LogState) {
	c, ok := m.index.Exact(ctr)
	if !ok {
		return
	}
	if s.Err == nil {
		c.logTrouble.Store(nil)
		c.log.Info("the container's log can be written again", "log", c.Record.LogPath, "bytes_lost", s.Lost)
		return
	}
	c.logTrouble.Store(&s)
	c.log.Error("the container's log can't be written: its output is lost until it can", "log", c.Record.LogPath, "err", s.Err)
}

// LogProblems names the running containers whose log can't be written.
func (m *Manager) LogProblems() []string {
	var out []string
	for _, c := range m.List(func(c *Container) bool { return c.logTrouble.Load() != nil && c.Status().State != Exited }) {
		if s := c.logTrouble.Load(); s != nil {
			out = append(out, fmt.Sprintf("container %s: its output is lost, log %s can't be written: %v", c.Record.ID, c.Record.LogPath, s.Err))
		}
	}
	return out
}

// journalFields go with each line of output that is sent to a journal.
func (c *Container) journalFields() []monitor.JournalField {
	md, pod := c.Config().GetMetadata(), c.pod.Config.GetMetadata()
	return []monitor.JournalField{
		{Name: "SYSLOG_IDENTIFIER", Value: md.GetName()},
		{Name: "CONTAINER_ID", Value: string(c.Record.ID)},
		{Name: "CONTAINER_NAME", Value: md.GetName()},
		{Name: "POD_ID", Value: string(c.pod.ID)},
		{Name: "POD_NAME", Value: pod.GetName()},
		{Name: "POD_NAMESPACE", Value: pod.GetNamespace()},
		{Name: "POD_UID", Value: pod.GetUid()},
	}
}
