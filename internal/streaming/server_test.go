package streaming

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/websocket"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"

	"github.com/gantry-cri/gantry/internal/errkind"
)

// fakeBackend is an echo: what the client sends comes back.
type fakeBackend struct {
	ended chan error // of each session's context, when it ends
	exec  func(ctx context.Context, s Streams) error
}

func (b *fakeBackend) Exec(ctx context.Context, _ string, _ []string, s Streams) error {
	context.AfterFunc(ctx, func() { b.ended <- context.Cause(ctx) })
	return b.exec(ctx, s)
}

func (b *fakeBackend) Attach(ctx context.Context, container string, s Streams) error {
	return b.Exec(ctx, container, nil, s)
}

func (b *fakeBackend) PortForward(ctx context.Context, _ string, _ uint16, conn io.ReadWriteCloser) error {
	context.AfterFunc(ctx, func() { b.ended <- context.Cause(ctx) })
	_, err := io.Copy(conn, conn)
	return errors.Join(err, conn.Close())
}

func echo(_ context.Context, s Streams) error {
	_, err := io.Copy(s.Out, s.In)
	return err
}

func serve(t *testing.T, exec func(context.Context, Streams) error) (*Server, *fakeBackend) {
	t.Helper()
	return serveIdle(t, time.Minute, exec)
}

func serveIdle(t *testing.T, idle time.Duration, exec func(context.Context, Streams) error) (*Server, *fakeBackend) {
	t.Helper()
	b := &fakeBackend{ended: make(chan error, 10), exec: exec}
	s, err := New(Options{Address: "127.0.0.1:0", IdleTimeout: idle, Backend: b, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve() }()
	t.Cleanup(func() {
		if err := errors.Join(s.Close(), <-done); err != nil {
			t.Error(err)
		}
	})
	return s, b
}

func execURL(t *testing.T, s *Server) string {
	t.Helper()
	resp, err := s.Exec(&runtimeapi.ExecRequest{ContainerId: "c", Cmd: []string{"x"}, Stdin: true, Stdout: true})
	if err != nil {
		t.Fatal(err)
	}
	return resp.Url
}

func TestTicketsWorkOnce(t *testing.T) {
	s, _ := serve(t, echo)
	url := execURL(t, s)
	for i, want := range []int{http.StatusBadRequest, http.StatusNotFound} { // bad: it asks for no upgrade
		resp, err := http.Post(url, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("use %d: status %d, want %d", i, resp.StatusCode, want)
		}
	}
}

func TestTicketsExpireAndAreBounded(t *testing.T) {
	var ts tickets
	answer := func(http.ResponseWriter, *http.Request) {}
	path, err := ts.issue("exec", answer)
	if err != nil || ts.take(path) == nil {
		t.Fatalf("a fresh ticket does not work: %v", err)
	}
	for range maxTickets {
		if path, err = ts.issue("exec", answer); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := ts.issue("exec", answer); errkind.Of(err) != errkind.Exhausted {
		t.Errorf("one ticket too many: %v", err)
	}
	for path, ticket := range ts.open {
		ticket.expires = time.Now().Add(-time.Second)
		ts.open[path] = ticket
	}
	if ts.take(path) != nil {
		t.Error("an expired ticket works")
	}
	if _, err := ts.issue("exec", answer); err != nil || len(ts.open) != 1 {
		t.Errorf("expired tickets are not dropped: %v, %d", err, len(ts.open))
	}
}

func TestRequestsThatCanNotBeServed(t *testing.T) {
	s, _ := serve(t, echo)
	for _, req := range []*runtimeapi.ExecRequest{{Stdout: true, Stderr: true, Tty: true}, {}, {Tty: true}} {
		if _, err := s.Exec(req); errkind.Of(err) != errkind.Invalid {
			t.Errorf("%v: %v", req, err)
		}
	}
}

func dialWebSocket(t *testing.T, url, protocol string) *websocket.Conn {
	t.Helper()
	ws, err := websocket.Dial(strings.Replace(url, "http", "ws", 1), protocol, "http://localhost")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ws.Close() })
	return ws
}

// receive reads messages up to the one of the error channel and returns, by
// channel, what they held.
func receive(t *testing.T, ws *websocket.Conn) map[byte]string {
	t.Helper()
	got := map[byte]string{}
	for got[3] == "" {
		var m []byte
		if err := websocket.Message.Receive(ws, &m); err != nil {
			t.Fatalf("%v after %d bytes of stdout, %d of stderr", err, len(got[1]), len(got[2]))
		}
		got[m[0]] += string(m[1:])
	}
	return got
}

func TestWebSocketHalfClose(t *testing.T) {
	s, _ := serve(t, echo)
	ws := dialWebSocket(t, execURL(t, s), "v5.channel.k8s.io")
	for _, m := range [][]byte{append([]byte{0}, "hello"...), {255, 0}} {
		if err := websocket.Message.Send(ws, m); err != nil {
			t.Fatal(err)
		}
	}
	if got := receive(t, ws); got[1] != "hello" || got[3] != `{"status":"Success"}` {
		t.Errorf("got %q", got)
	}
}

func TestWebSocketExitCodes(t *testing.T) {
	for _, tt := range []struct {
		protocol, want string
		err            error
	}{
		{"v5.channel.k8s.io", `"reason":"ExitCode","message":"7"`, &ExitError{7}},
		{"v4.channel.k8s.io", `"reason":"InternalError"`, errors.New("broken")},
		{"channel.k8s.io", "broken", errors.New("broken")},
	} {
		s, _ := serve(t, func(context.Context, Streams) error { return tt.err })
		ws := dialWebSocket(t, execURL(t, s), tt.protocol)
		if got := receive(t, ws); !strings.Contains(got[3], tt.want) {
			t.Errorf("%s: got %q, want %q in it", tt.protocol, got, tt.want)
		}
	}
}

// A client that vanishes ends its session, even while the session reads none
// of what it had sent.
func TestVanishedClient(t *testing.T) {
	s, b := serve(t, func(ctx context.Context, _ Streams) error {
		<-ctx.Done()
		return ctx.Err()
	})
	ws := dialWebSocket(t, execURL(t, s), "v4.channel.k8s.io")
	block := append([]byte{0}, bytes.Repeat([]byte{1}, 32<<10)...)
	for range 3 {
		if err := websocket.Message.Send(ws, block); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(100 * time.Millisecond)
	select {
	case err := <-b.ended:
		t.Fatalf("the session ended before its client: %v", err)
	default:
	}
	ws.Close()
	select {
	case <-b.ended:
	case <-time.After(time.Minute):
		t.Error("the session goes on")
	}
}

// What was sent reaches a slow client even if it had sent what nobody read, and
// goes on sending.
func TestLastOutputSurvivesUnreadInput(t *testing.T) {
	out := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	s, _ := serve(t, func(_ context.Context, s Streams) error {
		time.Sleep(300 * time.Millisecond) // input arrives and stays unread
		_, err := s.Out.Write(out)
		return err
	})
	ws := dialWebSocket(t, execURL(t, s), "v5.channel.k8s.io")
	go func() {
		block := append([]byte{0}, bytes.Repeat([]byte{1}, 32<<10)...)
		for websocket.Message.Send(ws, block) == nil {
		}
	}()
	time.Sleep(time.Second) // slow
	if got := receive(t, ws); got[1] != string(out) {
		t.Errorf("%d bytes of %d arrived", len(got[1]), len(out))
	}
}

// Ports are forwarded over SPDY, bare and inside a WebSocket.
func TestPortForward(t *testing.T) {
	s, b := serve(t, echo)
	for _, tunnel := range []bool{false, true} {
		resp, err := s.PortForward(&runtimeapi.PortForwardRequest{PodSandboxId: "p"})
		if err != nil {
			t.Fatal(err)
		}
		var raw net.Conn
		if tunnel {
			ws := dialWebSocket(t, resp.Url, "SPDY/3.1+portforward.k8s.io")
			ws.PayloadType = websocket.BinaryFrame
			raw = ws
		} else {
			raw = upgrade(t, resp.Url, "portforward.k8s.io")
		}
		conn, err := spdy.NewClientConnection(raw)
		if err != nil {
			t.Fatal(err)
		}
		data := forwardPort(t, conn)
		if _, err := io.WriteString(data, "hello"); err != nil {
			t.Fatal(err)
		}
		data.Close() // its own direction only
		if got, err := io.ReadAll(data); err != nil || string(got) != "hello" {
			t.Errorf("tunnel %v: got %q, %v", tunnel, got, err)
		}
		raw.Close()
		select {
		case <-b.ended:
		case <-time.After(time.Minute):
			t.Error("the session goes on")
		}
	}
}

// forwardPort makes the streams of one connection to a port.
func forwardPort(t *testing.T, conn httpstream.Connection) httpstream.Stream {
	t.Helper()
	headers := http.Header{}
	headers.Set("port", "80")
	headers.Set("requestID", "1")
	headers.Set("streamType", "error")
	if _, err := conn.CreateStream(headers); err != nil {
		t.Fatal(err)
	}
	headers.Set("streamType", "data")
	data, err := conn.CreateStream(headers)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// upgrade asks for SPDY.
func upgrade(t *testing.T, url, protocol string) net.Conn {
	t.Helper()
	host, path, _ := strings.Cut(strings.TrimPrefix(url, "http://"), "/")
	conn, err := net.Dial("tcp", host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	head := "POST /" + path + " HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: " + protocol + "\r\n\r\n"
	if _, err := io.WriteString(conn, head); err != nil {
		t.Fatal(err)
	}
	var got []byte
	for one := make([]byte, 1); !bytes.HasSuffix(got, []byte("\r\n\r\n")); got = append(got, one[0]) {
		if _, err := conn.Read(one); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.HasPrefix(got, []byte("HTTP/1.1 101")) {
		t.Fatalf("answer %q", got)
	}
	return conn
}
