package streaming

import (
	"context"
	"crypto/tls"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// The library takes connections over from the HTTP server, which then does
// not notice their end any more. A watched connection does: its context ends
// with it, so that a session whose client vanished is cleaned up.

// unreadGrace is how long what a client sent before it vanished may wait to be
// read, where the session is slow to take it.
const unreadGrace = time.Second

// watched is a listener of watched connections.
type watched struct{ net.Listener }

func (l watched) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	w := &watchedConn{Conn: c, gone: make(chan struct{})}
	w.watchHangup()
	return w, nil
}

// watchedConn closes gone once it was closed or its client has gone, even if
// nobody reads from it at that time.
type watchedConn struct {
	net.Conn
	socket *os.File // a duplicate for watching; nil if there can be none
	once   sync.Once
	gone   chan struct{}

	mu     sync.Mutex // guards closed, and that deadlines are set before it only
	closed bool       // by this side: see linger.go
}

func (c *watchedConn) Read(b []byte) (int, error) {
	if c.isClosed() {
		return 0, net.ErrClosed
	}
	n, err := c.Conn.Read(b)
	if err != nil && !isTimeout(err) {
		c.abandon()
	}
	return n, err
}

func (c *watchedConn) end() {
	c.once.Do(func() {
		close(c.gone)
		if c.socket != nil {
			c.socket.Close() //nolint:errcheck // a duplicate
		}
	})
}

// abandon ends c for a client that has gone: whoever still writes to it, or
// reads, gets an error.
func (c *watchedConn) abandon() {
	c.end()
	c.Conn.Close() //nolint:errcheck // nobody is there to miss anything
}

// watchHangup abandons c when the client has closed its end of the connection.
// Reading tells that only if all that it sent before is read, and a session
// need not do that: a command may ignore its input.
func (c *watchedConn) watchHangup() {
	under := c.Conn
	if t, ok := under.(*tls.Conn); ok {
		under = t.NetConn()
	}
	tcp, ok := under.(*net.TCPConn)
	if !ok {
		return
	}
	var err error
	if c.socket, err = tcp.File(); err != nil {
		return
	}
	raw, err := c.socket.SyscallConn()
	if err != nil {
		return
	}
	go func() {
		if raw.Read(hungUp) != nil {
			return // it was closed on this side
		}
		select {
		case <-time.After(unreadGrace):
			c.abandon()
		case <-c.gone:
		}
	}()
}

// hungUp reports whether the peer of a socket sends no more.
func hungUp(fd uintptr) bool {
	const hangup = unix.POLLRDHUP | unix.POLLHUP | unix.POLLERR
	polled := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	n, err := unix.Poll(polled, 0)
	return err == nil && n > 0 && polled[0].Revents&hangup != 0
}

// isTimeout tells a deadline that passed (the HTTP server sets one to get the
// connection back from its background read) from the connection's end.
func isTimeout(err error) bool {
	ne, ok := err.(net.Error)
	return ok && ne.Timeout()
}

// connKey is under what a request's context has its connection.
type connKey struct{}

// connContext gives each connection's requests a context that ends with it.
func connContext(ctx context.Context, c net.Conn) context.Context {
	w, ok := c.(*watchedConn)
	if !ok {
		return ctx
	}
	ctx, cancel := context.WithCancel(context.WithValue(ctx, connKey{}, w))
	go func() {
		<-w.gone
		cancel()
	}()
	return ctx
}
