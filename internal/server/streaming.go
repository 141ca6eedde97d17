package server

import (
	"context"
	"io"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/internal/container"
	"github.com/gantry-cri/gantry/internal/errkind"
	"github.com/gantry-cri/gantry/internal/oci"
	"github.com/gantry-cri/gantry/internal/sandbox"
	"github.com/gantry-cri/gantry/internal/streaming"
)

// Streams hands out the URLs at which sessions are served.
type Streams interface {
	Exec(*runtimeapi.ExecRequest) (*runtimeapi.ExecResponse, error)
	Attach(*runtimeapi.AttachRequest) (*runtimeapi.AttachResponse, error)
	PortForward(*runtimeapi.PortForwardRequest) (*runtimeapi.PortForwardResponse, error)
}

// Exec returns a URL at which a command runs in a container. What can be
// refused is refused here: a session has no other way to tell than its text.
func (s *Server) Exec(_ context.Context, req *runtimeapi.ExecRequest) (*runtimeapi.ExecResponse, error) {
	c, err := s.opts.Containers.Find(req.GetContainerId())
	if err != nil {
		return nil, err
	}
	if err := c.CanExec(req.GetCmd()); err != nil {
		return nil, err
	}
	return s.opts.Streams.Exec(req)
}

// Attach returns a URL at which a client is connected to a container's streams.
func (s *Server) Attach(_ context.Context, req *runtimeapi.AttachRequest) (*runtimeapi.AttachResponse, error) {
	c, err := s.opts.Containers.Find(req.GetContainerId())
	if err != nil {
		return nil, err
	}
	if err := c.CanAttach(req.GetStdin(), req.GetTty()); err != nil {
		return nil, err
	}
	return s.opts.Streams.Attach(req)
}

// PortForward returns a URL at which ports of a pod are forwarded.
func (s *Server) PortForward(_ context.Context, req *runtimeapi.PortForwardRequest) (*runtimeapi.PortForwardResponse, error) {
	p, err := s.opts.Pods.Find(req.GetPodSandboxId())
	if err != nil {
		return nil, err
	}
	if st := p.Status().State; st != sandbox.Ready {
		return nil, errkind.Errorf(errkind.Precondition, "forward ports of pod %s: it is %s, not ready", p.ID(), st)
	}
	for _, port := range req.GetPort() {
		if port <= 0 || port > 65535 {
			return nil, errkind.Errorf(errkind.Invalid, "forward ports of pod %s: port %d is not between 1 and 65535", p.ID(), port)
		}
	}
	return s.opts.Streams.PortForward(req)
}

// Backend connects streaming sessions to containers and pods.
type Backend struct {
	Pods       *sandbox.Manager
	Containers *container.Manager
}

// Exec implements streaming.Backend.
func (b Backend) Exec(ctx context.Context, ctr string, cmd []string, s streaming.Streams) error {
	c, err := b.Containers.Find(ctr)
	if err != nil {
		return err
	}
	code, err := c.Exec(ctx, cmd, ociStreams(s))
	if err == nil && code != 0 {
		return &streaming.ExitError{Code: code}
	}
	return err
}

// Attach implements streaming.Backend.
func (b Backend) Attach(ctx context.Context, ctr string, s streaming.Streams) error {
	c, err := b.Containers.Find(ctr)
	if err != nil {
		return err
	}
	return c.Attach(ctx, ociStreams(s))
}

// PortForward implements streaming.Backend.
func (b Backend) PortForward(ctx context.Context, pod string, port uint16, conn io.ReadWriteCloser) error {
	p, err := b.Pods.Find(pod)
	if err != nil {
		return err
	}
	return p.PortForward(ctx, port, conn)
}

// ociStreams keeps what the client did not ask for nil.
func ociStreams(s streaming.Streams) oci.Streams {
	out := oci.Streams{In: s.In, TTY: s.TTY, Resize: s.Resize}
	if s.Out != nil {
		out.Out = s.Out
	}
	if s.Err != nil {
		out.Err = s.Err
	}
	return out
}
