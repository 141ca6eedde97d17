package oci

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go/features"
	"golang.org/x/sys/unix"

	"github.com/gantry-cri/gantry/internal/errkind"
)

// commandTimeout bounds a command of a runtime whose caller sets no deadline.
const commandTimeout = 2 * time.Minute

// Runtime drives one OCI runtime binary with one root directory. It uses only
// the commands and flags that runc, crun, runsc and youki have in common, and
// is safe for concurrent use.
type Runtime struct {
	handler, root string
	options       RuntimeOptions
	env           []string
	marks         atomic.Uint32 // see newMark

	path  atomic.Pointer[string] // of the binary; "" until it is found in PATH
	known atomic.Pointer[known]  // never nil

	ended atomic.Bool // see End

	mu      sync.Mutex // guards probing
	probing *probing   // nil while no probe is under way
}

// RuntimeOptions are what a handler can be configured with besides its binary
// and root. Read only.
type RuntimeOptions struct {
	// Args are options of the binary, before every command.
	Args []string `json:"args,omitempty"`
	// DefaultAnnotations go into every specification; those of the request win.
	DefaultAnnotations map[string]string `json:"default_annotations,omitempty"`
	// AllowedAnnotations are prefixes of annotations that may reach the runtime
	// though they change how it works.
	AllowedAnnotations []string `json:"allowed_annotations,omitempty"`
	// PrivilegedWithoutHostDevices gives privileged containers no device of the
	// node but those that they ask for.
	PrivilegedWithoutHostDevices bool `json:"privileged_without_host_devices,omitempty"`
}

// NewRuntime drives the binary at path with the absolute directory root as its
// --root. handler is the name that the CRI knows it by, and the one that is
// looked up in PATH if path is "". A binary that is not there, or does not
// work, is not an error but what Ready tells.
func NewRuntime(ctx context.Context, handler, path, root string, o RuntimeOptions) (*Runtime, error) {
	if path != "" && !filepath.IsAbs(path) || !filepath.IsAbs(root) {
		return nil, errkind.Errorf(errkind.Invalid, "runtime %s: path %q and root %q must be absolute", handler, path, root)
	}
	r := &Runtime{handler: handler, root: root, options: o, env: runtimeEnv(os.Environ())}
	r.path.Store(&path)
	r.marks.Store(uint32(time.Now().UnixNano()))
	r.known.Store(&known{probed: probed{ociVersion: oldestOCIVersion}})
	_ = r.Ready(ctx) // it is asked for again before each use
	return r, nil
}

// runtimeEnv is the daemon's environment without what a service manager gave
// to the daemon alone: a runtime would take NOTIFY_SOCKET and the sockets of
// LISTEN_FDS for the container's.
func runtimeEnv(environ []string) []string {
	return slices.DeleteFunc(slices.Clone(environ), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return name == "NOTIFY_SOCKET" || name == "WATCHDOG_PID" || name == "WATCHDOG_USEC" || strings.HasPrefix(name, "LISTEN_")
	})
}

// End keeps the runtime from running any further command, for good: those that
// are asked for fail. What runs already is left to who waits for it.
func (r *Runtime) End() { r.ended.Store(true) }

// Handler is the name that the CRI knows the runtime by.
func (r *Runtime) Handler() string { return r.handler }

// Path is the binary; "" while PATH has none.
func (r *Runtime) Path() string { return *r.path.Load() }

// Root is the directory in which the runtime keeps its state.
func (r *Runtime) Root() string { return r.root }

// Options are what the handler was configured with.
func (r *Runtime) Options() RuntimeOptions { return r.options }

// Env is the environment that the runtime's commands are to run with.
func (r *Runtime) Env() []string { return slices.Clone(r.env) }

// Name is what the binary calls itself (runc, crun); "" if it does not say.
func (r *Runtime) Name() string { return r.current().name }

// Version is what the binary calls its own version; "" if it does not say.
func (r *Runtime) Version() string { return r.current().version }

// OCIVersion is the newest ociVersion of a specification that both the binary
// and Gantry know.
func (r *Runtime) OCIVersion() string { return r.current().ociVersion }

// Features is what the binary says it can do; nil where it has no such
// command. Read only.
func (r *Runtime) Features() *features.Features { return r.current().features }

// argv is the command line of one command of the runtime.
func (r *Runtime) argv(args ...string) []string {
	var own []string
	if r.Sandboxed() {
		own = sandboxedArgs
	}
	return slices.Concat([]string{r.Path(), "--root", r.root}, own, r.options.Args, args)
}

// probeArgv is the command line of a command that any kind of runtime
// understands.
func (r *Runtime) probeArgv(args ...string) []string {
	return slices.Concat([]string{r.Path(), "--root", r.root}, r.options.Args, args)
}

// CommandError is a command of a runtime that failed by its own account.
type CommandError struct {
	Runtime    string // the binary
	Command    string // "start CONTAINER"
	ExitStatus int
	Signal     unix.Signal // 0, or what ended the runtime
	Output     string      // the end of its standard error, at most 4 KiB
}

func (e *CommandError) Error() string {
	how := fmt.Sprintf("exit status %d", e.ExitStatus)
	if e.Signal != 0 {
		how = "ended by " + unix.SignalName(e.Signal)
	}
	if e.Output != "" {
		how += ": " + e.Output
	}
	return fmt.Sprintf("%s %s: %s", filepath.Base(e.Runtime), e.Command, how)
}

// Is makes what the runtime says of a full disk unix.ENOSPC.
func (e *CommandError) Is(target error) bool {
	return target == unix.ENOSPC && errkind.SaysFull(e.Output)
}

// isCommandError reports whether err is the runtime's own account of a
// failure, as opposed to a runtime that did not start or did not end.
func isCommandError(err error) bool {
	var e *CommandError
	return errors.As(err, &e)
}
