package streaming

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/websocket"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/streaming/pkg/httpstream/spdy"
)

// wantIdle fails the test unless the session's context ends for want of use,
// and not before it was idle for so long.
func wantIdle(t *testing.T, b *fakeBackend, since time.Time, idle time.Duration) {
	t.Helper()
	select {
	case err := <-b.ended:
		if !strings.Contains(err.Error(), "nothing was sent") {
			t.Errorf("the session ended by %v", err)
		}
		if took := time.Since(since); took < idle {
			t.Errorf("the session ended after %s, before its time", took)
		}
	case <-time.After(idle + time.Minute):
		t.Error("the idle session goes on")
	}
}

// wantClosed reads until the server has closed the connection.
func wantClosed(t *testing.T, conn net.Conn) {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, conn); isTimeout(err) {
		t.Error("the connection stays open")
	}
}

func untilEnd(ctx context.Context, _ Streams) error {
	<-ctx.Done()
	return context.Cause(ctx)
}

// A session over which nothing is sent ends and says why, whatever pings come,
// and even if it takes none of what the client had sent before.
func TestIdleWebSocket(t *testing.T) {
	const idle = 500 * time.Millisecond
	s, b := serveIdle(t, idle, untilEnd)
	begin := time.Now()
	ws := dialWebSocket(t, execURL(t, s), "v5.channel.k8s.io")
	if err := websocket.Message.Send(ws, []byte("\x00nobody reads this")); err != nil {
		t.Fatal(err)
	}
	ping := websocket.Codec{Marshal: func(any) ([]byte, byte, error) { return nil, websocket.PingFrame, nil }}
	go func() {
		for ping.Send(ws, nil) == nil {
			time.Sleep(idle / 10)
		}
	}()
	if got := receive(t, ws); !strings.Contains(got[3], "nothing was sent for 500ms") {
		t.Errorf("the client is told %q", got)
	}
	wantIdle(t, b, begin, idle)
}

// The same over SPDY.
func TestIdleSPDY(t *testing.T) {
	const idle = 500 * time.Millisecond
	s, b := serveIdle(t, idle, untilEnd)
	begin := time.Now()
	raw := upgrade(t, execURL(t, s), "v4.channel.k8s.io")
	conn, err := spdy.NewClientConnectionWithPings(raw, idle/10)
	if err != nil {
		t.Fatal(err)
	}
	var status io.Reader
	for _, kind := range []string{"error", "stdin", "stdout"} {
		headers := http.Header{}
		headers.Set("streamType", kind)
		stream, err := conn.CreateStream(headers)
		if err != nil {
			t.Fatal(err)
		}
		if kind == "error" {
			status = stream
		}
	}
	said, err := io.ReadAll(status)
	if err != nil || !strings.Contains(string(said), "nothing was sent for 500ms") {
		t.Errorf("the client is told %q, %v", said, err)
	}
	wantIdle(t, b, begin, idle)
}

// Port forwarding ends too, with and without a connection through it.
func TestIdlePortForward(t *testing.T) {
	const idle = 500 * time.Millisecond
	for _, connected := range []bool{false, true} {
		s, b := serveIdle(t, time.Hour, echo)
		s.SetIdleTimeout(idle)
		resp, err := s.PortForward(&runtimeapi.PortForwardRequest{PodSandboxId: "p"})
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		raw := upgrade(t, resp.Url, "portforward.k8s.io")
		conn, err := spdy.NewClientConnectionWithPings(raw, idle/10)
		if err != nil {
			t.Fatal(err)
		}
		if connected {
			forwardPort(t, conn)
			wantIdle(t, b, begin, idle)
		}
		select {
		case <-conn.CloseChan():
		case <-time.After(time.Minute):
			t.Errorf("connected %v: the session goes on", connected)
		}
	}
}

// A client that stopped reading can't keep the end from coming.
func TestIdleStuckClient(t *testing.T) {
	const idle = 500 * time.Millisecond
	ended := make(chan error, 2)
	flood := func(_ context.Context, s Streams) error {
		block := bytes.Repeat([]byte{'x'}, 32<<10)
		for {
			if _, err := s.Out.Write(block); err != nil {
				ended <- err
				return err
			}
		}
	}
	s, b := serveIdle(t, idle, flood)
	ws := dialWebSocket(t, execURL(t, s), "v5.channel.k8s.io")
	raw := upgrade(t, execURL(t, s), "v4.channel.k8s.io")
	conn, err := spdy.NewClientConnection(raw)
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"error", "stdin", "stdout"} { // nobody reads from them
		headers := http.Header{}
		headers.Set("streamType", kind)
		if _, err := conn.CreateStream(headers); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		select {
		case <-ended:
		case <-time.After(idle + idleGrace + lingerTime + time.Minute):
			t.Error("a session goes on")
		}
		<-b.ended
	}
	wantClosed(t, ws)
}

// Whatever passes in one direction keeps a session alive.
func TestActiveSessions(t *testing.T) {
	const idle, pause = 3 * time.Second, 100 * time.Millisecond
	end := time.Now().Add(2 * idle)
	for _, direction := range []string{"in", "out"} {
		t.Run(direction, func(t *testing.T) {
			t.Parallel()
			s, _ := serveIdle(t, idle, func(ctx context.Context, s Streams) error {
				if direction == "in" {
					n, err := io.Copy(io.Discard, s.In)
					if ctx.Err() != nil {
						return context.Cause(ctx)
					}
					return fmt.Errorf("%v after %d bytes", err, n)
				}
				for time.Now().Before(end) {
					if _, err := s.Out.Write([]byte("x")); err != nil {
						return err
					}
					time.Sleep(pause)
				}
				return context.Cause(ctx)
			})
			ws := dialWebSocket(t, execURL(t, s), "v5.channel.k8s.io")
			if direction == "in" {
				for time.Now().Before(end) {
					if err := websocket.Message.Send(ws, []byte("\x00x")); err != nil {
						t.Fatal(err)
					}
					time.Sleep(pause)
				}
				if err := websocket.Message.Send(ws, []byte{255, 0}); err != nil {
					t.Fatal(err)
				}
			}
			got := receive(t, ws)
			if strings.Contains(got[3], "nothing was sent") {
				t.Errorf("ended with %q", got[3])
			}
		})
	}
}
