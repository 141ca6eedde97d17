package oci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
)

// SandboxUsage is what a sandbox tells of one of its containers.
type SandboxUsage struct {
	CPU     uint64 // nanoseconds: the container's part, estimated, of what the node's kernel counts of the sandbox
	Memory  uint64 // bytes
	Threads uint64
}

// SandboxUsage asks the sandbox of a container that was started for its usage,
// by a command of the runtime, which needs a living sandbox to end before ctx.
// Only for a runtime that is Sandboxed.
func (r *Runtime) SandboxUsage(ctx context.Context, id string) (SandboxUsage, error) {
	out, err := r.command(ctx, "events", "--stats", id)
	if err != nil {
		return SandboxUsage{}, errors.Join(err, r.forgetGone(id))
	}
	u, err := parseUsage(out)
	if err != nil {
		return SandboxUsage{}, fmt.Errorf("usage of container %s by %s: %w", id, r.Path(), err)
	}
	return u, nil
}

// forgetGone removes the lock that a question makes which comes after the
// container was deleted: no one would remove it then.
func (r *Runtime) forgetGone(id string) error {
	state, err := filepath.Glob(filepath.Join(r.root, id+"_sandbox:*.state"))
	if err != nil || len(state) > 0 {
		return err
	}
	return Forget(r.root, id)
}

// parseUsage reads one event. It has the form of runc's, of which runsc leaves
// out what is zero.
func parseUsage(text []byte) (SandboxUsage, error) {
	var event struct {
		Type string `json:"type"`
		Data struct {
			CPU struct {
				Usage struct {
					Total uint64 `json:"total"`
				} `json:"usage"`
			} `json:"cpu"`
			Memory struct {
				Usage struct {
					Usage uint64 `json:"usage"`
				} `json:"usage"`
			} `json:"memory"`
			Pids struct {
				Current uint64 `json:"current"` // tasks
			} `json:"pids"`
		} `json:"data"`
	}
	if err := json.Unmarshal(text, &event); err != nil {
		return SandboxUsage{}, err
	}
	if event.Type != "stats" {
		return SandboxUsage{}, fmt.Errorf("an event of type %q", event.Type)
	}
	d := event.Data
	return SandboxUsage{CPU: d.CPU.Usage.Total, Memory: d.Memory.Usage.Usage, Threads: d.Pids.Current}, nil
}
