package oci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/gantry-cri/gantry/internal/errkind"
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
	if known, err := r.knowsSandboxed(id); err != nil || !known {
		return SandboxUsage{}, errors.Join(err, errkind.Errorf(errkind.NotFound, "%s knows no container %s", r.Path(), id))
	}
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

// knowsSandboxed reports whether the container was created and not deleted. A
// question for another one makes a lock, which stays if the daemon ends just
// then.
func (r *Runtime) knowsSandboxed(id string) (bool, error) {
	state, err := filepath.Glob(filepath.Join(r.root, id+"_sandbox:*.state"))
	return len(state) > 0, err
}

// forgetGone removes the lock that a question makes amid which the container was
// deleted: no one would remove it then.
func (r *Runtime) forgetGone(id string) error {
	known, err := r.knowsSandboxed(id)
	if err != nil || known {
		return err
	}
	return Forget(r.root, id)
}

// ForgetSandbox removes the locks that are left of a sandbox: each command of
// runsc looks at all containers of it, and makes a lock for one that another
// command deletes meanwhile. id is that of the sandbox's first container;
// nothing of the sandbox may be left. Other runtimes leave nothing.
func (r *Runtime) ForgetSandbox(id string) error {
	if !r.KnownSandboxed() {
		return nil
	}
	locks, err := filepath.Glob(filepath.Join(r.root, "*_sandbox:"+id+".lock"))
	for _, lock := range locks {
		err = errors.Join(err, os.Remove(lock))
	}
	return err
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
