package container

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/gantry-cri/gantry/internal/errkind"
	"github.com/gantry-cri/gantry/internal/id"
	"github.com/gantry-cri/gantry/internal/monitor"
)

// straightLogPath is a container's log path without links on the way, which the
// monitor does not follow. One that leads out of the pod's log directory, by a
// link that was put there just now, is refused.
func straightLogPath(dir, path string) (string, error) {
	if path == "" {
		return "", nil
	}
	root, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return "", fmt.Errorf("log directory: %w", err)
	}
	parent, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return "", fmt.Errorf("log path: %w", err)
	}
	if parent != root && !strings.HasPrefix(parent, root+"/") {
		return "", errkind.Errorf(errkind.Invalid, "log path %q leads out of the pod's log directory", path)
	}
	return filepath.Join(parent, filepath.Base(path)), nil
}

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
