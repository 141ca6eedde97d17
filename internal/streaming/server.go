// Package streaming serves exec, attach and port-forward over HTTP (SPDY and
// WebSocket, as the Kubernetes streaming library speaks them). A CRI call
// hands out a URL with a token that works once and for a minute; who has it is
// connected to what a Backend provides.
package streaming

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"

	"github.com/gantry-cri/gantry/internal/errkind"
)

// ForwardLibraryLogs sends the streaming library's log, which is one for the
// whole process, to log. What it calls errors are sessions that failed.
func ForwardLibraryLogs(log *slog.Logger) { klog.SetSlogLogger(log) }

// Size is a terminal's size in characters.
type Size = struct{ Columns, Rows uint16 }

// Streams are the client's ends of one session. What the client did not ask
// for is nil. With a TTY there is no Err.
type Streams struct {
	In     io.Reader
	Out    io.WriteCloser
	Err    io.WriteCloser
	TTY    bool
	Resize <-chan Size // closed when the session ends; nil without a TTY
}

// Backend is what sessions are connected to. Each call lasts as long as its
// session; ctx ends when the client goes away.
type Backend interface {
	// Exec runs cmd in a container. A command that ends with another code than
	// 0 is an *ExitError.
	Exec(ctx context.Context, container string, cmd []string, s Streams) error
	// Attach connects to the container's own streams.
	Attach(ctx context.Context, container string, s Streams) error
	// PortForward connects conn to a TCP port in the pod's network.
	PortForward(ctx context.Context, pod string, port uint16, conn io.ReadWriteCloser) error
}

// ExitError is the end of a command with another exit code than 0.
type ExitError struct{ Code int }

func (e *ExitError) Error() string   { return fmt.Sprintf("exit code %d", e.Code) }
func (e *ExitError) String() string  { return e.Error() }
func (e *ExitError) Exited() bool    { return true }
func (e *ExitError) ExitStatus() int { return e.Code }

// Options say where and how to serve.
type Options struct {
	// Address is host:port; port 0 takes a free one. The URLs handed out name
	// it, so that the kubelet must be able to reach it; for a wildcard they
	// name 127.0.0.1.
	Address string
	// TLS serves HTTPS; nil serves HTTP.
	TLS *tls.Config
	// IdleTimeout ends a session over which neither side has sent anything for
	// so long; pings don't count. It must be positive.
	IdleTimeout time.Duration
	Backend     Backend
	Log         *slog.Logger
}

// Server hands out URLs and serves them. Make one with New.
type Server struct {
	tickets  tickets
	backend  Backend
	base     string       // of the URLs: scheme://host:port
	idle     atomic.Int64 // a time.Duration
	http     *http.Server
	listener net.Listener
	log      *slog.Logger
}

// New listens at o.Address; Serve answers.
func New(o Options) (*Server, error) {
	listener, err := net.Listen("tcp", o.Address)
	if err != nil {
		return nil, fmt.Errorf("streaming: %w", err)
	}
	s := &Server{backend: o.Backend, log: o.Log}
	s.SetIdleTimeout(o.IdleTimeout)
	s.base = "http://" + reachable(listener.Addr())
	if o.TLS != nil {
		s.base = "https://" + reachable(listener.Addr())
		listener = tls.NewListener(listener, o.TLS)
	}
	s.listener = watched{listener}
	s.http = &http.Server{
		Handler:           &s.tickets,
		ReadHeaderTimeout: 30 * time.Second,
		IdleTimeout:       time.Minute,
		ConnContext:       connContext,
		ErrorLog:          slog.NewLogLogger(o.Log.Handler(), slog.LevelDebug),
	}
	return s, nil
}

// SetIdleTimeout changes Options.IdleTimeout for sessions that begin later.
func (s *Server) SetIdleTimeout(d time.Duration) { s.idle.Store(int64(d)) }

// reachable is a listener's address as a client on this node can name it: a
// wildcard is none.
func reachable(addr net.Addr) string {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok || !tcp.IP.IsUnspecified() {
		return addr.String()
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(tcp.Port))
}

// Addr is where the server listens, as URLs name it.
func (s *Server) Addr() string { return s.base }

// Serve answers until Close.
func (s *Server) Serve() error {
	if err := s.http.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("streaming: %w", err)
	}
	return nil
}

// Close ends the listening and every connection that no session has taken over.
func (s *Server) Close() error { return s.http.Close() }

// The kinds of sessions, which are also the first parts of their paths.
const (
	kindExec        = "exec"
	kindAttach      = "attach"
	kindPortForward = "portforward"
)

// Exec returns the URL at which a session runs the requested command.
func (s *Server) Exec(req *runtimeapi.ExecRequest) (*runtimeapi.ExecResponse, error) {
	o := wanted{req.GetStdin(), req.GetStdout(), req.GetStderr(), req.GetTty()}
	url, err := s.issueCommand(kindExec, req.GetContainerId(), o, func(ctx context.Context, streams Streams) error {
		return s.backend.Exec(ctx, req.GetContainerId(), req.GetCmd(), streams)
	})
	return &runtimeapi.ExecResponse{Url: url}, err
}

// Attach returns the URL at which a session is attached to a container.
func (s *Server) Attach(req *runtimeapi.AttachRequest) (*runtimeapi.AttachResponse, error) {
	o := wanted{req.GetStdin(), req.GetStdout(), req.GetStderr(), req.GetTty()}
	url, err := s.issueCommand(kindAttach, req.GetContainerId(), o, func(ctx context.Context, streams Streams) error {
		return s.backend.Attach(ctx, req.GetContainerId(), streams)
	})
	return &runtimeapi.AttachResponse{Url: url}, err
}

func (s *Server) issueCommand(kind, container string, o wanted, run command) (string, error) {
	switch {
	case o.tty && o.stderr:
		return "", errkind.Errorf(errkind.Invalid, "%s in container %s: a terminal has no stderr of its own: ask for stdout only", kind, container)
	case !o.stdin && !o.stdout && !o.stderr:
		return "", errkind.Errorf(errkind.Invalid, "%s in container %s: none of stdin, stdout and stderr is asked for", kind, container)
	}
	return s.issue(kind, s.serveCommand(kind, o, run))
}

// PortForward returns the URL at which ports of a pod are forwarded.
func (s *Server) PortForward(req *runtimeapi.PortForwardRequest) (*runtimeapi.PortForwardResponse, error) {
	url, err := s.issue(kindPortForward, s.servePortForward(req.GetPodSandboxId(), req.GetPort()))
	return &runtimeapi.PortForwardResponse{Url: url}, err
}

func (s *Server) issue(kind string, serve http.HandlerFunc) (string, error) {
	path, err := s.tickets.issue(kind, serve)
	if err != nil {
		return "", err
	}
	return s.base + path, nil
}
