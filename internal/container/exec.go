package container

import (
	"context"
	"path/filepath"
	"time"

	"github.com/gantry-cri/gantry/internal/cgroup"
	"github.com/gantry-cri/gantry/internal/errkind"
	"github.com/gantry-cri/gantry/internal/oci"
)

// CanExec returns why a command can't run in the container now, or nil: of kind
// Invalid for no command, Precondition for a container that does not run.
func (c *Container) CanExec(args []string) error {
	if len(args) == 0 {
		return errkind.Errorf(errkind.Invalid, "exec in container %s: no command given", c.Record.ID)
	}
	return c.requireRunning()
}

// ExecSync runs a command in a running container and waits for it. A timeout
// of zero is none; after a timeout nothing of the command lives on and the
// error is of kind errkind.Timeout. The monitor has no part in it.
func (c *Container) ExecSync(ctx context.Context, args []string, timeout time.Duration) (oci.ExecResult, error) {
	if err := c.CanExec(args); err != nil {
		return oci.ExecResult{}, err
	}
	return c.pod.Runtime.ExecSync(ctx, string(c.Record.ID), oci.ExecSyncOptions{
		Args:        args,
		Config:      filepath.Join(c.Dir(), "config.json"),
		Timeout:     timeout,
		MaxOutput:   c.settings().ExecOutputMax,
		Dir:         c.Dir(),
		CgroupProcs: cgroup.ProcsFiles(c.env.Node, c.Record.Cgroup),
		UserNS:      c.pod.UserNS,
		Helper:      c.env.ExecWait,
		OOMScoreAdj: c.oomScore(),
	})
}

// Exec runs a command in a running container, connected to s, and returns its
// exit code. When ctx ends nothing of the command lives on.
func (c *Container) Exec(ctx context.Context, args []string, s oci.Streams) (int, error) {
	if err := c.CanExec(args); err != nil {
		return 0, err
	}
	return c.pod.Runtime.Exec(ctx, string(c.Record.ID), oci.StreamOptions{
		Args:        args,
		Config:      filepath.Join(c.Dir(), "config.json"),
		Dir:         c.Dir(),
		CgroupProcs: cgroup.ProcsFiles(c.env.Node, c.Record.Cgroup),
		UserNS:      c.pod.UserNS,
		Helper:      c.env.ExecWait,
		OOMScoreAdj: c.oomScore(),
	}, s)
}

// oomScore is what the container's processes have since the last update.
func (c *Container) oomScore() *int {
	score := c.env.Node.ClampOOMScoreAdj(c.Resources().GetOomScoreAdj())
	return &score
}
