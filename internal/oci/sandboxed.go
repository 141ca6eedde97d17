package oci

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-cri/gantry/internal/errkind"
)

// gVisor's runsc runs all containers of a pod as processes of one sandbox with
// a kernel of its own. It finds the sandbox of a container by its annotations.
// The pause container starts that sandbox, whose process is like the init that
// other runtimes leave behind. Another container has no process on the node:
// the program standin (see standin/ in the repository's root) stands in for it.

// Sandboxed reports whether the runtime is of this kind, by what the binary
// calls itself.
func (r *Runtime) Sandboxed() bool { return r.current().sandboxed() }

// KnownSandboxed is Sandboxed as far as it is known without looking at the
// binary. It never waits.
func (r *Runtime) KnownSandboxed() bool { return r.known.Load().sandboxed() }

func (p probed) sandboxed() bool { return p.name == "runsc" }

// OwnNetwork reports whether pods have a network stack inside their sandbox, that
// takes the addresses over which the pod was given.
func (r *Runtime) OwnNetwork() bool {
	return r.Sandboxed() && !slices.Contains(r.options.Args, "--network=host")
}

// DialSandbox connects to a TCP port of the loopback interface inside the
// sandbox id. dir is an existing directory for the socket by which that is done.
func (r *Runtime) DialSandbox(ctx context.Context, id, dir string, port uint16) (net.Conn, error) {
	s, err := listenSocket(dir, "port")
	if err != nil {
		return nil, err
	}
	defer s.Close() //nolint:errcheck // it has served its purpose
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	failed := make(chan error, 1)
	go func() {
		_, err := r.command(ctx, "port-forward", "--stream", s.path, id, strconv.Itoa(int(port)))
		if failed <- err; err != nil {
			cancel()
		}
	}()
	conn, err := s.accept(ctx)
	if ranErr := <-failed; ranErr != nil {
		if err == nil {
			conn.Close() //nolint:errcheck // nothing came of it
		}
		return nil, errkind.Errorf(errkind.Unavailable, "port %d: %w", port, ranErr)
	}
	return conn, err
}

// sandboxedArgs come before the handler's own options, which win.
//
// The overlay of runsc's own would write to a file in the root filesystem,
// which it wants to remove where that is not mounted any more. And it would pin
// a network namespace in the runtime's root, a mount that nobody removes.
var sandboxedArgs = []string{"--overlay2=none", "--gofer-network-namespace=new"}

// The files of a stand-in, in the container's bundle.
const (
	standInSocket = "start.sock"
	standInLog    = "start.log"
)

// StandInArgs is the command line that creates a container inside its pod's
// sandbox, with program, which is standin, in the place of its init.
func (r *Runtime) StandInArgs(program string, a CreateArgs) []string {
	pidFile := a.PidFile
	a.PidFile = "" // runsc would write the sandbox's
	start := append([]string{"--log", filepath.Join(a.Bundle, standInLog), "--log-format", "json"}, "start", a.ID)
	return slices.Concat(
		[]string{program, pidFile, filepath.Join(a.Bundle, standInSocket)}, r.CreateArgs(a),
		[]string{"--"}, r.argv(start...),
		[]string{"--"}, r.argv("wait", a.ID))
}

// StartStandIn lets the process of a container run that was created by
// StandInArgs. bundle is the container's directory. The errors are those of
// Start.
func (r *Runtime) StartStandIn(ctx context.Context, id, bundle string) error {
	status, err := askStandIn(ctx, bundle)
	if err != nil {
		err = fmt.Errorf("start %s: %w", id, err)
		if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) {
			err = errkind.Wrap(errkind.Timeout, err)
		}
		return err
	}
	if status == 0 {
		return nil
	}
	return r.explain(ctx, id, &CommandError{
		Runtime: r.Path(), Command: "start " + id, ExitStatus: status, Output: lastMessage(filepath.Join(bundle, standInLog)),
	})
}

// askStandIn has the stand-in start the container and returns the runtime's
// exit status. The socket's path goes through a descriptor, since that of a
// socket can have no more than 107 bytes.
func askStandIn(ctx context.Context, bundle string) (int, error) {
	dir, err := os.OpenFile(bundle, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return 0, err
	}
	defer dir.Close() //nolint:errcheck // opened for reading only
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), standInSocket))
	if err != nil {
		return 0, err
	}
	defer conn.Close()                                                      //nolint:errcheck // nothing is written
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Now()) }) //nolint:errcheck // closed then
	defer stop()
	answer := make([]byte, 1)
	if _, err := io.ReadFull(conn, answer); err != nil {
		return 0, fmt.Errorf("the process that stands in for the container: %w", err)
	}
	return int(answer[0]), nil
}

// lastMessage is the last that runsc wrote to its log of errors: "" if that
// can't be read.
func lastMessage(log string) string {
	text, err := os.ReadFile(log)
	if err != nil {
		return ""
	}
	var last struct{ Msg string }
	for d := json.NewDecoder(bytes.NewReader(text)); ; {
		var next struct{ Msg string }
		if d.Decode(&next) != nil {
			return last.Msg
		}
		last = next
	}
}
