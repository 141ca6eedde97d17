// Package monitor talks to gantry-monitor, the small process that owns what
// must outlive the daemon: a pod's containers, their output and their exits.
package monitor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-cri/gantry/internal/id"
)

// Client is a connection to one pod's monitor. It is safe for concurrent use;
// requests of several callers are under way at the same time.
//
// When a method returns because its context has ended, the request may still be
// carried out.
type Client struct {
	dir     string
	pid     int
	conn    *net.UnixConn
	raw     syscall.RawConn
	handler Handler
	send    chan struct{} // held by whoever writes to conn
	done    chan struct{} // closed when the connection is lost

	mu         sync.Mutex       // guards what follows
	lastID     uint64           // of a request
	calls      map[uint64]*call // by request id
	events     []func()         // not delivered yet
	delivering bool             // a goroutine delivers events
}

// call is a request that waits for its reply.
type call struct {
	parts [][]byte      // fields of the replies so far
	ready chan struct{} // closed after the last one
}

// Handler is what is called for the events of a monitor: one call at a time,
// in the order in which things happened. A nil function is not called.
type Handler struct {
	// Exit is called for each container's exit, once per connection; also for
	// the exits before a Connect of containers that are not forgotten.
	Exit func(id.Container, Exit)
	// Log is called when a container's log can't be written any more, and when
	// it can again; also, after a Connect, for each that can't.
	Log func(id.Container, LogState)
}

// Connect connects to the monitor that runs in the pod's directory dir.
func Connect(ctx context.Context, dir string, h Handler) (*Client, error) {
	conn, err := dial(ctx, dir)
	if err != nil {
		return nil, fmt.Errorf("connect to the monitor: %w", err)
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	c := &Client{
		dir: dir, conn: conn, raw: raw, handler: h,
		send: make(chan struct{}, 1), done: make(chan struct{}), calls: map[uint64]*call{},
	}
	go c.receive()
	if err := c.greet(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("connect to the monitor in %s: %w", dir, err), c.Close())
	}
	return c, nil
}

func (c *Client) greet(ctx context.Context) error {
	fields, err := c.roundTrip(ctx, newMessage(gmHello, 0))
	if err != nil {
		return err
	}
	for f := range fieldsOf(fields) {
		if f.tag == gmTagPid {
			c.pid = int(f.number())
		}
	}
	if c.handler.Exit == nil && c.handler.Log == nil {
		return nil
	}
	_, err = c.roundTrip(ctx, newMessage(gmSubscribe, 0))
	return err
}

// PID returns the monitor's process id.
func (c *Client) PID() int { return c.pid }

// Done is closed when the connection is lost: the monitor has died or was shut
// down, or Close was called.
func (c *Client) Done() <-chan struct{} { return c.done }

// Close ends the connection; the monitor lives on. It returns after the
// connection's goroutine has ended, but does not wait for a call of the handler
// that is under way.
func (c *Client) Close() error {
	err := c.conn.Close()
	<-c.done
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// roundTrip sends a request and returns the fields of its reply, or the error
// that it carries.
func (c *Client) roundTrip(ctx context.Context, m *message) ([]byte, error) {
	parts, err := c.roundTrips(ctx, m)
	if err != nil {
		return nil, err
	}
	return parts[0], nil
}

// roundTrips is roundTrip for requests with several replies.
func (c *Client) roundTrips(ctx context.Context, m *message) ([][]byte, error) {
	waiting := &call{ready: make(chan struct{})}
	c.mu.Lock()
	c.lastID++
	callID := c.lastID
	c.calls[callID] = waiting
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.calls, callID)
		c.mu.Unlock()
	}()
	m.setID(callID)
	if err := c.write(ctx, m); err != nil {
		return nil, err
	}
	select {
	case <-waiting.ready:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-c.done:
		select {
		case <-waiting.ready: // its reply was the last thing we read
		default:
			return nil, ErrDisconnected
		}
	}
	if err := replyError(waiting.parts[0]); err != nil {
		return nil, err
	}
	return waiting.parts, nil
}

// write sends one message. A packet is sent whole or not at all, so giving up
// leaves the connection usable.
func (c *Client) write(ctx context.Context, m *message) error {
	packet, err := m.encoded()
	if err != nil {
		return err
	}
	select {
	case c.send <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-c.done:
		return ErrDisconnected
	}
	defer func() { <-c.send }()
	if err := c.conn.SetWriteDeadline(time.Time{}); err != nil {
		return ErrDisconnected
	}
	fired := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		c.conn.SetWriteDeadline(time.Now()) // fails only where the write has failed
		close(fired)
	})
	_, err = c.conn.Write(packet)
	if !stop() {
		<-fired // so that it can't hit the next writer
	}
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, unix.EPIPE), errors.Is(err, unix.ECONNRESET), errors.Is(err, net.ErrClosed):
		return ErrDisconnected
	}
	return fmt.Errorf("send to the monitor in %s: %w", c.dir, err)
}

// receive reads until the connection is lost.
func (c *Client) receive() {
	defer close(c.done)
	for {
		packet, err := readPacket(c.raw)
		if err == nil {
			err = c.handle(packet)
		}
		if err != nil {
			c.conn.Close() // a second close, or one of a connection that is useless
			return
		}
	}
}

func (c *Client) handle(packet []byte) error {
	kind, callID, fields, err := parse(packet)
	if err != nil {
		return err
	}
	switch kind {
	case gmReply:
		c.handleReply(callID, fields)
	case gmExit:
		info := parseContainer(fields)
		if h := c.handler.Exit; h != nil {
			c.queueEvent(func() { h(info.ID, info.Exit) })
		}
	case gmLog:
		if h := c.handler.Log; h != nil {
			ctr, state := parseLog(fields)
			c.queueEvent(func() { h(ctr, state) })
		}
	}
	return nil
}

func (c *Client) handleReply(callID uint64, fields []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	waiting := c.calls[callID]
	if waiting == nil {
		return // its caller has given up
	}
	waiting.parts = append(waiting.parts, fields)
	for f := range fieldsOf(fields) {
		if f.tag == gmTagMore {
			return
		}
	}
	delete(c.calls, callID)
	close(waiting.ready)
}

// queueEvent has event called, by one goroutine that lives only while there is
// something to deliver.
func (c *Client) queueEvent(event func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.events = append(c.events, event)
	if !c.delivering {
		c.delivering = true
		go c.deliver()
	}
}

func (c *Client) deliver() {
	for {
		c.mu.Lock()
		if len(c.events) == 0 {
			c.events = nil
			c.delivering = false
			c.mu.Unlock()
			return
		}
		event := c.events[0]
		c.events = c.events[1:]
		c.mu.Unlock()
		event()
	}
}

// packets lends buffers for the time of one read, so that an idle connection
// costs none.
var packets = sync.Pool{New: func() any { return new([gmMaxMessage]byte) }}

// readPacket waits for one packet and returns a copy of it.
func readPacket(raw syscall.RawConn) (packet []byte, err error) {
	waitErr := raw.Read(func(fd uintptr) bool {
		buf := packets.Get().(*[gmMaxMessage]byte)
		defer packets.Put(buf)
		var n int
		for {
			n, err = unix.Read(int(fd), buf[:])
			if err != unix.EINTR {
				break
			}
		}
		if err == unix.EAGAIN {
			return false
		}
		if err == nil {
			packet = append([]byte(nil), buf[:n]...)
		}
		return true
	})
	if waitErr != nil {
		return nil, waitErr
	}
	if err == nil && len(packet) == 0 {
		err = io.EOF
	}
	return packet, err
}
