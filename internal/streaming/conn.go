package streaming

import (
	"context"
	"net"
	"sync"
)

// The library takes connections over from the HTTP server, which then does
// not notice their end any more. A watched connection does: its context ends
// with it, so that a session whose client vanished is cleaned up.

// watched is a listener of watched connections.
type watched struct{ net.Listener }

func (l watched) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &watchedConn{Conn: c, gone: make(chan struct{})}, nil
}

// watchedConn closes gone once it was closed or reading from it failed.
type watchedConn struct {
	net.Conn
	once sync.Once
	gone chan struct{}
}

func (c *watchedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil && !isTimeout(err) {
		c.end()
	}
	return n, err
}

func (c *watchedConn) Close() error {
	c.end()
	return c.Conn.Close()
}

func (c *watchedConn) end() { c.once.Do(func() { close(c.gone) }) }

// isTimeout tells a deadline that passed (the HTTP server sets one to get the
// connection back from its background read) from the connection's end.
func isTimeout(err error) bool {
	ne, ok := err.(net.Error)
	return ok && ne.Timeout()
}

// connContext gives each connection's requests a context that ends with it.
func connContext(ctx context.Context, c net.Conn) context.Context {
	w, ok := c.(*watchedConn)
	if !ok {
		return ctx
	}
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		<-w.gone
		cancel()
	}()
	return ctx
}
