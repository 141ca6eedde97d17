package oci

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"

	rspec "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/gantry-cri/gantry/internal/errkind"
)

// ExecOptions say what to run in a container.
type ExecOptions struct {
	Args []string
	// Config is the config.json that the container was created with. The
	// process gets its user, environment, working directory, capabilities and
	// limits from there: without being told, crun would run it as root.
	Config string
	// Dir is an existing directory for the two small files of the call, which
	// Exec.Close removes.
	Dir string
	TTY bool
	// OOMScoreAdj, unless nil, is the process's instead of that in Config. runc
	// goes by what it created the container with, whatever is said here.
	OOMScoreAdj *int
	// ConsoleSocket receives the pseudo-terminal, with TTY only.
	ConsoleSocket string
	// ConsoleSize is the terminal's size from the start, where it is known.
	ConsoleSize *rspec.Box
}

// Exec is a command that runs a process in a container.
type Exec struct {
	// Cmd is RUNTIME exec, not yet started, with no stdio.
	Cmd *exec.Cmd
	// PidFile is where the runtime writes the process's PID (of this
	// namespace) once it runs. A runtime that ends without having written it
	// did not start the process.
	PidFile     string
	processFile string
	inside      *insideExec // with a sandboxed runtime
	oomScoreAdj *int        // of the container's process
	detached    []string    // the command line with --detach
	helped      bool        // Cmd runs through execwait
}

// Close removes the files of the command. It may be called when Cmd has ended
// or was never started.
func (e *Exec) Close() error {
	var errs []error
	paths := []string{e.PidFile, e.processFile}
	if e.inside != nil {
		paths = append(paths, e.inside.pidFile)
	}
	for _, path := range paths {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// ExecCommand prepares RUNTIME exec in the container id. ctx bounds the life
// of the runtime's own process only: see ExecSync for one that ends all.
func (r *Runtime) ExecCommand(ctx context.Context, id string, o ExecOptions) (*Exec, error) {
	if len(o.Args) == 0 {
		return nil, errkind.Errorf(errkind.Invalid, "exec in container %s: no command", id)
	}
	process, err := readProcess(o.Config)
	if err != nil {
		return nil, fmt.Errorf("exec in container %s: %w", id, err)
	}
	process.Args, process.Terminal = o.Args, o.TTY
	process.ConsoleSize = o.ConsoleSize
	if o.OOMScoreAdj != nil {
		process.OOMScoreAdj = o.OOMScoreAdj
	}
	body, err := json.Marshal(process)
	if err != nil {
		return nil, fmt.Errorf("exec in container %s: %w", id, err)
	}
	name := filepath.Join(o.Dir, "exec-"+rand.Text())
	e := &Exec{PidFile: name + ".pid", processFile: name + ".json", oomScoreAdj: process.OOMScoreAdj}
	if err := os.WriteFile(e.processFile, body, 0o600); err != nil {
		return nil, fmt.Errorf("exec in container %s: %w", id, err)
	}
	args := []string{"exec", "--process", e.processFile, "--pid-file", e.PidFile}
	if r.Sandboxed() {
		e.inside = &insideExec{runtime: r, container: id, pidFile: name + ".inside"}
		args = append(args, "--internal-pid-file", e.inside.pidFile)
	}
	if o.TTY && o.ConsoleSocket != "" {
		args = append(args, "--console-socket", o.ConsoleSocket)
		if !r.Sandboxed() { // runsc goes by the socket
			args = append(args, "--tty")
		}
	}
	argv := r.argv(append(args, id)...)
	e.detached = r.argv(append(append(args, "--detach"), id)...)
	e.Cmd = exec.CommandContext(ctx, argv[0], argv[1:]...)
	e.Cmd.Env = r.env
	return e, nil
}

// waitThrough makes Cmd run the runtime through the program execwait.
func (e *Exec) waitThrough(helper string) {
	score := ""
	if e.oomScoreAdj != nil {
		score = strconv.Itoa(*e.oomScoreAdj)
	}
	e.helped = true
	e.Cmd.Path, e.Cmd.Args = helper, slices.Concat([]string{helper}, e.inside.helperArgs(), []string{score, e.PidFile}, e.detached)
}

// readProcess reads the process of a specification and stops there: what
// follows, the seccomp profile above all, is most of the file.
func readProcess(config string) (*rspec.Process, error) {
	f, err := os.Open(config)
	if err != nil {
		return nil, err
	}
	defer f.Close() // opened for reading only
	d := json.NewDecoder(f)
	if _, err := d.Token(); err != nil { // {
		return nil, fmt.Errorf("%s: %w", config, err)
	}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", config, err)
		}
		if key != "process" {
			var skipped json.RawMessage
			if err := d.Decode(&skipped); err != nil {
				return nil, fmt.Errorf("%s: %w", config, err)
			}
			continue
		}
		var p rspec.Process
		if err := d.Decode(&p); err != nil {
			return nil, fmt.Errorf("%s: process: %w", config, err)
		}
		return &p, nil
	}
	return nil, fmt.Errorf("%s: it has no process", config)
}
