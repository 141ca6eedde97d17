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
	"net/url"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-streaming/pkg/streaming"
)

// Size is a terminal's size in characters.
type Size struct{ Columns, Rows uint16 }

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
	// it, so that the kubelet must be able to reach it.
	Address string
	// TLS serves HTTPS; nil serves HTTP.
	TLS *tls.Config
	// IdleTimeout ends a session over which nothing was sent for so long.
	IdleTimeout time.Duration
	Backend     Backend
	Log         *slog.Logger
}

// Server hands out URLs and serves them. Make one with New.
type Server struct {
	lib      streaming.Server
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
	cfg := streaming.DefaultConfig
	cfg.Addr = listener.Addr().String()
	cfg.BaseURL = &url.URL{Scheme: "http", Host: cfg.Addr}
	cfg.StreamIdleTimeout = o.IdleTimeout
	if o.TLS != nil {
		cfg.BaseURL.Scheme = "https"
		listener = tls.NewListener(listener, o.TLS)
	}
	lib, err := streaming.NewServer(cfg, adapter{o.Backend})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("streaming: %w", err), listener.Close())
	}
	s := &Server{lib: lib, listener: watched{listener}, log: o.Log}
	s.http = &http.Server{
		Handler:           lib,
		ReadHeaderTimeout: 30 * time.Second,
		ConnContext:       connContext,
		ErrorLog:          slog.NewLogLogger(o.Log.Handler(), slog.LevelDebug),
	}
	return s, nil
}

// Serve answers until Close.
func (s *Server) Serve() error {
	if err := s.http.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("streaming: %w", err)
	}
	return nil
}

// Close ends the listening and every session.
func (s *Server) Close() error { return s.http.Close() }

// Exec returns the URL at which a session runs the requested command.
func (s *Server) Exec(req *runtimeapi.ExecRequest) (*runtimeapi.ExecResponse, error) {
	return s.lib.GetExec(req)
}

// Attach returns the URL at which a session is attached to a container.
func (s *Server) Attach(req *runtimeapi.AttachRequest) (*runtimeapi.AttachResponse, error) {
	return s.lib.GetAttach(req)
}

// PortForward returns the URL at which ports of a pod are forwarded.
func (s *Server) PortForward(req *runtimeapi.PortForwardRequest) (*runtimeapi.PortForwardResponse, error) {
	return s.lib.GetPortForward(req)
}
