package oci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gantry-cri/gantry/internal/errkind"
)

// CreateArgs is what RUNTIME create is told. Every path is absolute.
type CreateArgs struct {
	ID      string
	Bundle  string
	PidFile string // "" for none
	// ConsoleSocket receives the pseudo-terminal of a process with a terminal; "" without one.
	ConsoleSocket string
	// Systemd tells the runtime that systemd makes the container's cgroup.
	Systemd bool
}

// CreateArgs is the command line that creates a container. Nothing is run:
// the container's monitor does that, as its parent.
func (r *Runtime) CreateArgs(a CreateArgs) []string {
	var args []string
	if a.Systemd {
		args = append(args, "--systemd-cgroup")
	}
	args = append(args, "create", "--bundle", a.Bundle)
	if a.PidFile != "" {
		args = append(args, "--pid-file", a.PidFile)
	}
	if a.ConsoleSocket != "" {
		args = append(args, "--console-socket", a.ConsoleSocket)
	}
	return r.argv(append(args, a.ID)...)
}

// Start lets a created container's process run.
func (r *Runtime) Start(ctx context.Context, id string) error {
	_, err := r.command(ctx, "start", id)
	return r.explain(ctx, id, err)
}

// Kill sends sig to the container's init, or to all its processes. The kind
// of the error is NotFound if there is no such container, and Precondition if
// it has ended.
func (r *Runtime) Kill(ctx context.Context, id string, sig unix.Signal, all bool) error {
	args := []string{"kill"}
	if all {
		args = append(args, "--all")
	}
	_, err := r.command(ctx, append(args, id, strconv.Itoa(int(sig)))...)
	return r.explain(ctx, id, err)
}

// Delete removes what the runtime keeps of the container. With force, a
// container that still runs is killed first; and if the binary does not work
// any more, its files are removed without it: the caller has seen to it that
// no process of the container is left. A container that does not exist is no
// error.
func (r *Runtime) Delete(ctx context.Context, id string, force bool) error {
	args := []string{"delete"}
	if force {
		args = append(args, "--force")
	}
	_, err := r.command(ctx, append(args, id)...)
	if err = r.explain(ctx, id, err); errkind.Of(err) == errkind.NotFound {
		return nil
	}
	if err != nil && force && !r.runs() {
		if gone := Forget(r.root, id); gone != nil {
			return errors.Join(err, gone)
		}
		return nil
	}
	return err
}

// runs tries out whether the binary works at all.
func (r *Runtime) runs() bool {
	ctx, cancel := context.WithTimeout(context.Background(), probeTimeout)
	defer cancel()
	_, err := r.command(ctx, "--version")
	return err == nil
}

// Forget removes what the runtime whose root is given keeps of a container: a
// directory of its name there, or files that begin with it. Nothing of the
// container may be left.
func Forget(root, id string) error {
	if id == "" || strings.ContainsAny(id, `/*?[\`) {
		return fmt.Errorf("forget container %q: it can't have that name", id)
	}
	files, err := filepath.Glob(filepath.Join(root, id+"*"))
	if err != nil {
		return err
	}
	for _, file := range files {
		if err := os.RemoveAll(file); err != nil {
			return err
		}
	}
	return nil
}

// explain gives the failure of a command on a container its kind, by what the
// runtime then says of the container.
func (r *Runtime) explain(ctx context.Context, id string, err error) error {
	if err == nil || !isCommandError(err) {
		return err
	}
	state, stateErr := r.State(ctx, id)
	switch {
	case errkind.Of(stateErr) == errkind.NotFound:
		return errkind.Wrap(errkind.NotFound, err)
	case stateErr == nil && state.Status == StatusStopped:
		return errkind.Wrap(errkind.Precondition, err)
	}
	return err
}

// The states of a container, in the words of the OCI runtime specification.
const (
	StatusCreating = "creating"
	StatusCreated  = "created"
	StatusRunning  = "running"
	StatusStopped  = "stopped"
	StatusPaused   = "paused" // not of the specification, but of every runtime that can pause
)

// State is what a runtime says of a container.
// See https://github.com/opencontainers/runtime-spec/blob/main/runtime.md#state
type State struct {
	ID     string `json:"id"`
	Status string `json:"status"`
	PID    int    `json:"pid"` // 0 if stopped
	Bundle string `json:"bundle"`
}

// State asks for a container's state. The error's kind is NotFound if the
// runtime does not know it.
func (r *Runtime) State(ctx context.Context, id string) (State, error) {
	out, err := r.command(ctx, "state", id)
	if err != nil {
		if isCommandError(err) && r.unknown(ctx, id) {
			return State{}, errkind.Wrap(errkind.NotFound, err)
		}
		return State{}, err
	}
	var s State
	if err := json.Unmarshal(out, &s); err != nil {
		return State{}, fmt.Errorf("state of container %s by %s: %w", id, r.Path(), err)
	}
	return s, nil
}

// unknown reports whether the runtime is sure that it has no container id: an
// exit status alone does not tell that from another failure.
func (r *Runtime) unknown(ctx context.Context, id string) bool {
	out, err := r.command(ctx, "list", "--quiet")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(out)) {
		if strings.TrimSpace(line) == id {
			return false
		}
	}
	return true
}

// List asks for the states of all containers below the runtime's root.
func (r *Runtime) List(ctx context.Context) ([]State, error) {
	out, err := r.command(ctx, "list", "--format", "json")
	if err != nil {
		return nil, err
	}
	var states []State
	if err := json.Unmarshal(out, &states); err != nil {
		return nil, fmt.Errorf("list of containers by %s: %w", r.Path(), err)
	}
	return states, nil
}
