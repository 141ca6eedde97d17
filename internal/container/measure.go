package container

import (
	"context"

	"github.com/gantry-cri/gantry/internal/oci"
)

// What package stats measures of a container in a sandbox.

// InSandbox reports whether the container's processes are in a sandbox with a
// kernel of its own, so that its cgroup counts nothing. It never waits.
func (c *Container) InSandbox() bool { return c.pod.Runtime.KnownSandboxed() }

// SandboxUsage asks the sandbox for the container's usage: a command of the
// runtime, which may hang until ctx ends.
func (c *Container) SandboxUsage(ctx context.Context) (oci.SandboxUsage, error) {
	return c.pod.Runtime.SandboxUsage(ctx, string(c.Record.ID))
}
