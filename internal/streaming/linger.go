package streaming

import (
	"crypto/tls"
	"io"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// The end of a connection. Closing a socket whose input is unread, or to which
// more input comes, makes the kernel drop the output that the client has not
// fetched yet: the end of what a command printed, and its exit code. So a
// connection is closed for sending, and what the client still sends is dropped
// until it has closed its end, too, or has all of the output.

const (
	// lingerTime is how long a client may fetch nothing of the remaining
	// output, or may leave its end open once it has all.
	lingerTime = 10 * time.Second
	// lingerMax bounds how long a client may take in all, however steadily it reads.
	lingerMax = 10 * time.Minute
)

// Close says that nothing more is sent, and returns. It may be called again and
// again, as the library does: only the first call counts.
func (c *watchedConn) Close() error {
	c.mu.Lock()
	first := !c.closed
	c.closed = true
	c.mu.Unlock()
	if !first {
		return nil
	}
	select {
	case <-c.gone: // nobody is there to linger for
		return c.Conn.Close()
	default:
	}
	c.end()
	go c.linger()
	return nil
}

func (c *watchedConn) linger() {
	defer c.Conn.Close() //nolint:errcheck // nothing is left to lose
	// TLS waits for a write that is under way before it can say good-bye.
	c.Conn.SetWriteDeadline(time.Now().Add(lingerTime)) //nolint:errcheck // closing tells the same
	half, ok := c.Conn.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	last := unsent(c.Conn)
	for end := time.Now().Add(lingerMax); time.Now().Before(end); {
		if c.Conn.SetReadDeadline(time.Now().Add(lingerTime)) != nil {
			return
		}
		if _, err := io.Copy(io.Discard, c.Conn); !isTimeout(err) {
			return // the client has closed its end
		}
		now := unsent(c.Conn)
		if now == 0 || now >= last {
			return
		}
		last = now
	}
}

// unsent is how many bytes of output the client has not fetched yet; 0 if that
// can't be told.
func unsent(conn net.Conn) int {
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return 0
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return 0
	}
	n := 0
	err = raw.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) })
	if err != nil {
		return 0
	}
	return n
}

// The library sets deadlines as long as it reads and writes, from goroutines
// that may not know yet of the end. Lingering has its own.

func (c *watchedConn) SetDeadline(t time.Time) error {
	return c.unlessClosed(func() error { return c.Conn.SetDeadline(t) })
}

func (c *watchedConn) SetReadDeadline(t time.Time) error {
	return c.unlessClosed(func() error { return c.Conn.SetReadDeadline(t) })
}

func (c *watchedConn) SetWriteDeadline(t time.Time) error {
	return c.unlessClosed(func() error { return c.Conn.SetWriteDeadline(t) })
}

func (c *watchedConn) unlessClosed(set func() error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	return set()
}

func (c *watchedConn) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}
