// Package systemd asks the service manager, over D-Bus, for the units whose
// cgroups Gantry may use where systemd manages them: slices for pods, and
// scopes for processes that no OCI runtime starts.
// See https://www.freedesktop.org/software/systemd/man/latest/org.freedesktop.systemd1.html
package systemd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"

	"github.com/gantry-cri/gantry/internal/errkind"
)

// DefaultAddress is the system bus where the environment names no other.
const DefaultAddress = "unix:path=/run/dbus/system_bus_socket"

// Client talks to systemd. Each operation has a connection of its own, so that
// none waits for another's and there is none to lose: a connection takes about
// a millisecond, and a pod needs two or three.
type Client struct {
	address string
	timeout atomic.Int64 // a time.Duration
}

// New returns a client of the bus at address, in the notation of D-Bus
// (unix:path=FILE; the first of several that are separated by semicolons is
// taken). timeout bounds each operation. Nothing is connected yet.
func New(address string, timeout time.Duration) *Client {
	c := &Client{address: address}
	c.SetTimeout(timeout)
	return c
}

// SetTimeout changes what bounds operations that begin later.
func (c *Client) SetTimeout(timeout time.Duration) { c.timeout.Store(int64(timeout)) }

// AddressFrom is the address of the system bus by an environment.
func AddressFrom(getenv func(string) string) string {
	if address := getenv("DBUS_SYSTEM_BUS_ADDRESS"); address != "" {
		return address
	}
	return DefaultAddress
}

// Running reports whether systemd is this node's service manager (sd_booted(3)).
func Running() bool {
	info, err := os.Lstat("/run/systemd/system")
	return err == nil && info.IsDir()
}

const (
	service     = "org.freedesktop.systemd1"
	objectPath  = "/org/freedesktop/systemd1"
	manager     = service + ".Manager"
	unitExists  = service + ".UnitExists"
	noSuchUnit  = service + ".NoSuchUnit"
	jobRemoved  = "JobRemoved"
	jobDone     = "done"
	jobSkipped  = "skipped" // there was nothing to do
	modeReplace = "replace"
)

// session is one connection, for one operation on one unit.
type session struct {
	conn *dbus.Conn
	unit string
	jobs chan *dbus.Signal // of the unit
}

// do opens a session for the unit and runs work in it, within the timeout. The
// kind of the error is Unavailable where nobody answers at the address, and
// Timeout where somebody does, but not in time.
func (c *Client) do(ctx context.Context, what, unit string, work func(context.Context, *session) error) error {
	timeout := time.Duration(c.timeout.Load())
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	err := c.inSession(ctx, unit, work)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return errkind.Errorf(errkind.Timeout, "systemd: %s %s: no answer within %s: %w", what, unit, timeout, ctx.Err())
	case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
		return errkind.Errorf(errkind.Unavailable, "systemd: %s %s: nobody listens on the system bus: %w", what, unit, err)
	}
	return fmt.Errorf("systemd: %s %s: %w", what, unit, err)
}

func (c *Client) inSession(ctx context.Context, unit string, work func(context.Context, *session) error) (err error) {
	stream, err := c.dial(ctx)
	if err != nil {
		return err
	}
	// Ends every read and write, those of the greeting too, when ctx ends.
	stop := context.AfterFunc(ctx, func() { _ = stream.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	conn, err := dbus.NewConn(stream)
	if err != nil {
		return errors.Join(err, stream.Close())
	}
	defer conn.Close() //nolint:errcheck // all that was asked has been answered, or is given up
	if err := conn.Auth([]dbus.Auth{dbus.AuthExternal(strconv.Itoa(os.Getuid()))}); err != nil {
		return err
	}
	if err := conn.Hello(); err != nil {
		return err
	}
	s := &session{conn: conn, unit: unit, jobs: make(chan *dbus.Signal, 16)}
	if err := s.listen(ctx); err != nil {
		return err
	}
	return work(ctx, s)
}

func (c *Client) dial(ctx context.Context) (net.Conn, error) {
	first, _, _ := strings.Cut(c.address, ";")
	kind, options, _ := strings.Cut(first, ":")
	path := ""
	for option := range strings.SplitSeq(options, ",") {
		if value, ok := strings.CutPrefix(option, "path="); ok {
			path = value
		}
	}
	if kind != "unix" || path == "" {
		return nil, fmt.Errorf("address %q of the system bus is not unix:path=FILE", c.address)
	}
	var d net.Dialer
	return d.DialContext(ctx, "unix", path)
}

// listen subscribes to the ends of the unit's jobs, before there are any.
func (s *session) listen(ctx context.Context) error {
	s.conn.Signal(s.jobs)
	err := s.conn.AddMatchSignalContext(ctx,
		dbus.WithMatchSender(service), dbus.WithMatchInterface(manager), dbus.WithMatchMember(jobRemoved), dbus.WithMatchArg(2, s.unit))
	if err != nil {
		return err
	}
	return s.call(ctx, "Subscribe").Err
}

func (s *session) call(ctx context.Context, method string, args ...any) *dbus.Call {
	return s.conn.Object(service, objectPath).CallWithContext(ctx, manager+"."+method, 0, args...)
}

// run calls a method that returns a job, and waits for the job's end.
func (s *session) run(ctx context.Context, method string, args ...any) error {
	var job dbus.ObjectPath
	if err := s.call(ctx, method, args...).Store(&job); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case signal, open := <-s.jobs:
			if !open {
				return errors.New("the connection ended before the job did")
			}
			if result, ours := resultOf(signal, job); ours {
				if result == jobDone || result == jobSkipped {
					return nil
				}
				return fmt.Errorf("the job ended as %q", result)
			}
		}
	}
}

// resultOf reads a JobRemoved signal: id, job, unit, result.
func resultOf(signal *dbus.Signal, job dbus.ObjectPath) (string, bool) {
	if len(signal.Body) != 4 || signal.Body[1] != job {
		return "", false
	}
	result, ok := signal.Body[3].(string)
	return result, ok
}

// is reports whether err is the D-Bus error of that name.
func is(err error, name string) bool {
	var e dbus.Error
	return errors.As(err, &e) && e.Name == name
}

// Reach returns nil if systemd answers. The kinds of the error are those of
// every operation: Unavailable, or Timeout.
func (c *Client) Reach(ctx context.Context) error {
	// A session begins with a call of the manager's.
	return c.do(ctx, "reach", "the manager", func(context.Context, *session) error { return nil })
}
