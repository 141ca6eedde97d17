package monitor

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-cri/gantry/internal/id"
)

// AttachOptions says which streams an attached client wants.
type AttachOptions struct {
	Stdin, Stdout, Stderr bool
}

// Stream is an attached client: a connection of its own that carries a
// container's streams. It brings output from the moment of attaching on; a
// container with a terminal has stdout only.
//
// About 8 MiB are kept for a client that reads slowly. When it has not read them
// the container's output waits, for a client that never reads half a
// second in all; one that reads more than 4 MiB/s is always waited for. Then
// output is dropped for this client alone until it has read most of what it has,
// and an Event tells how much was dropped.
//
// Receive may be called by one goroutine, Write and CloseWrite by another one.
// Close it after use; that detaches and leaves the container running, but ends
// the standard input of one that was created with StdinOnce and no terminal.
type Stream struct {
	client    *Client
	container id.Container
	conn      *net.UnixConn
	closed    atomic.Bool
	buf       [1 + gmStreamMax]byte
	out       [1 + gmStreamMax]byte
}

// EventKind says what an Event brings.
type EventKind int

// The kinds.
const (
	StdoutData  EventKind = iota // Data
	StderrData                   // Data
	StdoutEnded                  // the container has closed it, or has none
	StderrEnded
	OutputLost // Lost
	ContainerExited
)

// Event is something that a Stream brings.
type Event struct {
	Kind EventKind
	Data []byte // valid until the next Receive
	Lost uint64 // bytes of output that were dropped here
	Exit Exit   // Code and Signal
}

// Attach attaches to a container that has been created and has not exited; it
// need not be started yet. The error wraps ErrExited if it has exited.
func (c *Client) Attach(ctx context.Context, ctr id.Container, o AttachOptions) (*Stream, error) {
	conn, err := dial(ctx, c.dir)
	if err != nil {
		return nil, fmt.Errorf("attach to container %s: %w", ctr, err)
	}
	s := &Stream{client: c, container: ctr, conn: conn}
	if err := s.handshake(ctx, o); err != nil {
		return nil, errors.Join(fmt.Errorf("attach to container %s: %w", ctr, exited(err)), s.Close())
	}
	return s, nil
}

func (s *Stream) handshake(ctx context.Context, o AttachOptions) error {
	m := about(gmAttach, s.container)
	m.setID(1)
	m.putUint32(gmTagFlags, o.flags())
	packet, err := m.encoded()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { s.conn.SetDeadline(time.Now()) })
	_, err = s.conn.Write(packet)
	n := 0
	if err == nil {
		n, err = s.conn.Read(s.buf[:])
	}
	switch {
	case !stop():
		return context.Cause(ctx)
	case err != nil:
		return err
	}
	_, _, fields, err := parse(s.buf[:n])
	if err != nil {
		return err
	}
	return replyError(fields)
}

func (o AttachOptions) flags() uint32 {
	var flags uint32
	if o.Stdin {
		flags |= gmAttachStdin
	}
	if o.Stdout {
		flags |= gmAttachStdout
	}
	if o.Stderr {
		flags |= gmAttachStderr
	}
	return flags
}

// Receive waits for the next event. After ContainerExited, and after Close, it
// returns io.EOF; ErrDisconnected if the monitor is gone.
func (s *Stream) Receive() (Event, error) {
	for {
		n, err := s.conn.Read(s.buf[:])
		if s.closed.Load() {
			return Event{}, io.EOF
		}
		if err != nil || n == 0 {
			return Event{}, ErrDisconnected
		}
		if e, ok := parseEvent(s.buf[0], s.buf[1:n]); ok {
			s.closed.Store(e.Kind == ContainerExited)
			return e, nil
		}
	}
}

// parseEvent understands one stream packet; not ok for one of a newer monitor.
func parseEvent(kind byte, data []byte) (Event, bool) {
	switch {
	case kind == gmStreamStdout && len(data) == 0:
		return Event{Kind: StdoutEnded}, true
	case kind == gmStreamStdout:
		return Event{Kind: StdoutData, Data: data}, true
	case kind == gmStreamStderr && len(data) == 0:
		return Event{Kind: StderrEnded}, true
	case kind == gmStreamStderr:
		return Event{Kind: StderrData, Data: data}, true
	case kind == gmStreamLost && len(data) >= 8:
		return Event{Kind: OutputLost, Lost: binary.LittleEndian.Uint64(data)}, true
	case kind == gmStreamExit && len(data) >= 8:
		exit := Exit{Code: int(binary.LittleEndian.Uint32(data)), Signal: int(binary.LittleEndian.Uint32(data[4:]))}
		return Event{Kind: ContainerExited, Exit: exit}, true
	}
	return Event{}, false
}

// Write sends to the container's standard input. It waits while the container
// does not read; Close ends the wait. Where there is no reader, input vanishes.
func (s *Stream) Write(p []byte) (int, error) {
	s.out[0] = gmStreamStdin
	done := 0
	for done < len(p) {
		n := copy(s.out[1:], p[done:])
		if _, err := s.conn.Write(s.out[:1+n]); err != nil {
			return done, s.writeError(err)
		}
		done += n
	}
	return done, nil
}

// CloseWrite says that this client sends no more. It closes the standard input
// of a container that was created with StdinOnce and no terminal.
func (s *Stream) CloseWrite() error {
	if _, err := s.conn.Write([]byte{gmStreamStdin}); err != nil {
		return s.writeError(err)
	}
	return nil
}

func (s *Stream) writeError(err error) error {
	if s.closed.Load() || errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) {
		return io.ErrClosedPipe
	}
	return fmt.Errorf("write to container %s: %w", s.container, err)
}

// Resize sets the size of the container's terminal. It goes another way than
// input does, so input that the container does not read can't delay it.
func (s *Stream) Resize(ctx context.Context, columns, rows uint16) error {
	return s.client.Resize(ctx, s.container, columns, rows)
}

// Close detaches.
func (s *Stream) Close() error {
	s.closed.Store(true)
	err := s.conn.Close()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// Copied says what Stream.Copy has done.
type Copied struct {
	Exited bool // the container has ended
	Exit   Exit
	Lost   uint64 // bytes of output that came too fast for the writers
}

// Copy moves data between the streams and the given ends, any of which may be
// nil, until the container has exited, a writer fails or s is closed. It returns
// without waiting for a Read of stdin that is under way: what that brings is dropped.
func (s *Stream) Copy(stdin io.Reader, stdout, stderr io.Writer) (Copied, error) {
	if stdin != nil {
		go func() {
			if _, err := io.Copy(s, stdin); err == nil {
				s.CloseWrite() // fails only where there is nothing left to close
			}
		}()
	}
	var done Copied
	for {
		e, err := s.Receive()
		if err == io.EOF {
			return done, nil
		}
		if err != nil {
			return done, err
		}
		switch e.Kind {
		case StdoutData:
			err = writeTo(stdout, e.Data)
		case StderrData:
			err = writeTo(stderr, e.Data)
		case OutputLost:
			done.Lost += e.Lost
		case ContainerExited:
			done.Exited, done.Exit = true, e.Exit
		}
		if err != nil {
			return done, fmt.Errorf("attached to container %s: %w", s.container, err)
		}
	}
}

func writeTo(w io.Writer, data []byte) error {
	if w == nil {
		return nil
	}
	_, err := w.Write(data)
	return err
}
