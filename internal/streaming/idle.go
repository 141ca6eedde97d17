package streaming

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// The library has idle timeouts of its own, which are not used: over SPDY the
// pings that every Kubernetes client sends count as use there, so that no
// session would ever be idle; over WebSocket nobody looks at the time while the
// session does not take what the client has sent; and over both a client that
// has stopped reading can keep the end from coming.

// idleGrace is how long an idle session may take to say why it ends, before
// its connection is closed.
const idleGrace = time.Second

// session is one use of a ticket: it ends when nothing has passed between
// client and backend for the server's idle timeout.
type session struct {
	ctx  context.Context // ends with the session; its cause tells why
	end  context.CancelCauseFunc
	idle time.Duration
	conn *watchedConn // nil if it is not known
	used atomic.Int64 // when something passed last, in nanoseconds after began

	began time.Time
	mu    sync.Mutex  // guards timer
	timer *time.Timer // looks whether the session is idle, later closes conn; nil once the session is over
}

// begin starts a session for a request. The caller ends it with over.
func (s *Server) begin(kind string, r *http.Request) *session {
	ctx, end := context.WithCancelCause(r.Context())
	conn, _ := ctx.Value(connKey{}).(*watchedConn)
	idle := time.Duration(s.idle.Load())
	n := &session{ctx: ctx, end: end, idle: idle, conn: conn, began: time.Now()}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.timer = time.AfterFunc(idle, func() {
		if n.look() {
			s.log.Info("session ended: nothing was sent", "kind", kind, "for", idle)
		}
	})
	return n
}

func (n *session) over() {
	n.end(nil)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.timer.Stop()
	n.timer = nil
}

func (n *session) use() { n.used.Store(int64(time.Since(n.began))) }

// look ends the session if it is idle and reports whether it did; else it
// looks again when the session can be idle next.
func (n *session) look() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.timer == nil {
		return false
	}
	if left := n.idle - (time.Since(n.began) - time.Duration(n.used.Load())); left > 0 {
		n.timer.Reset(left)
		return false
	}
	n.end(fmt.Errorf("session ended: nothing was sent for %s", n.idle))
	n.timer = time.AfterFunc(idleGrace, func() {
		if n.conn != nil {
			n.conn.Close() //nolint:errcheck // it lingers
		}
	})
	return true
}

// streams are s, watched.
func (n *session) streams(s Streams) Streams {
	if s.In != nil {
		s.In = usedReader{s.In, n}
	}
	if s.Out != nil {
		s.Out = usedWriter{s.Out, n}
	}
	if s.Err != nil {
		s.Err = usedWriter{s.Err, n}
	}
	return s
}

// duplex is conn, watched.
func (n *session) duplex(conn io.ReadWriteCloser) io.ReadWriteCloser {
	return struct {
		io.Reader
		io.WriteCloser
	}{usedReader{conn, n}, usedWriter{conn, n}}
}

type usedReader struct {
	io.Reader
	session *session
}

func (r usedReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if n > 0 {
		r.session.use()
	}
	return n, err
}

type usedWriter struct {
	io.WriteCloser
	session *session
}

func (w usedWriter) Write(p []byte) (int, error) {
	n, err := w.WriteCloser.Write(p)
	if n > 0 {
		w.session.use()
	}
	return n, err
}
