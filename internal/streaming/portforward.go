package streaming

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"

	"golang.org/x/net/websocket"
	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
	"k8s.io/streaming/pkg/httpstream/wsstream"
)

// servePortForward answers with a handler that forwards ports of a pod: over
// SPDY, over SPDY inside a WebSocket (what kubectl and crictl mean by
// WebSocket here), or over a WebSocket's channels, two for each of ports.
func (s *Server) servePortForward(pod string, ports []int32) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		session := s.begin(kindPortForward, r)
		defer session.over()
		if wsstream.IsWebSocketRequestWithTunnelingProtocol(r) {
			s.serveTunnel(w, r, pod, session)
			return
		}
		s.forward(w, r, pod, ports, session)
	}
}

func (s *Server) forward(w http.ResponseWriter, r *http.Request, pod string, ports []int32, session *session) {
	options, err := portforward.BuildV4Options(ports)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	portforward.ServePortForward(w, r, forwarder{session, s.backend}, pod, "", options,
		noTimeout, remotecommand.DefaultStreamCreationTimeout, portforward.SupportedProtocols)
}

// forwarder speaks the library's interface. The library hands on a context
// that never ends; the session's ends with it.
type forwarder struct {
	session *session
	backend Backend
}

func (f forwarder) PortForward(_ context.Context, pod, _ string, port int32, stream io.ReadWriteCloser) error {
	if port <= 0 || port > 65535 {
		return fmt.Errorf("port %d is not between 1 and 65535", port)
	}
	return f.backend.PortForward(f.session.ctx, pod, uint16(port), f.session.duplex(stream))
}

// serveTunnel serves SPDY whose bytes travel in a WebSocket's messages.
func (s *Server) serveTunnel(w http.ResponseWriter, r *http.Request, pod string, session *session) {
	websocket.Server{
		Handshake: func(c *websocket.Config, _ *http.Request) error {
			if !slices.Contains(c.Protocol, portforward.WebsocketsSPDYTunnelingPortForwardV1) {
				return fmt.Errorf("none of the protocols %q is known", c.Protocol)
			}
			c.Protocol = []string{portforward.WebsocketsSPDYTunnelingPortForwardV1}
			return nil
		},
		Handler: func(ws *websocket.Conn) {
			ws.PayloadType = websocket.BinaryFrame
			s.forward(&tunnelWriter{ws: ws, header: http.Header{}}, tunnelRequest(r), pod, nil, session)
		},
	}.ServeHTTP(w, r)
}

// tunnelRequest is the request as if it had asked for SPDY itself.
func tunnelRequest(r *http.Request) *http.Request {
	r = r.Clone(r.Context())
	r.Header.Set(httpstream.HeaderConnection, httpstream.HeaderUpgrade)
	r.Header.Set(httpstream.HeaderUpgrade, spdy.HeaderSpdy31)
	r.Header.Set(httpstream.HeaderProtocolVersion, portforward.ProtocolV1Name)
	return r
}

// tunnelWriter is the response inside a tunnel: its head, which the WebSocket's
// own replaced, is dropped; what is taken over is the tunnel.
type tunnelWriter struct {
	ws     *websocket.Conn
	header http.Header
}

func (t *tunnelWriter) Header() http.Header         { return t.header }
func (t *tunnelWriter) WriteHeader(int)             {}
func (t *tunnelWriter) Write(p []byte) (int, error) { return len(p), nil }

func (t *tunnelWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return t.ws, bufio.NewReadWriter(bufio.NewReader(t.ws), bufio.NewWriter(t.ws)), nil
}
