// Package server is the gRPC face of Gantry: it implements the RuntimeService
// and ImageService of the Kubernetes CRI (k8s.io/cri-api v1). Each method
// validates, calls the package that does the work, and translates the result;
// errors become gRPC codes in one place.
package server

import (
	"log/slog"

	"google.golang.org/grpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/internal/container"
	"github.com/gantry-cri/gantry/internal/image"
	"github.com/gantry-cri/gantry/internal/sandbox"
	"github.com/gantry-cri/gantry/internal/stats"
)

// Network is what the server asks of the network.
type Network interface {
	// Ready returns nil, or why pods that need a network can't be run. It never waits.
	Ready() error
}

// Server implements both CRI services. Make one with New.
type Server struct {
	runtimeapi.UnsafeRuntimeServiceServer
	runtimeapi.UnsafeImageServiceServer

	opts Options
}

// Options are what a Server serves.
type Options struct {
	Version    string // of Gantry
	Pods       *sandbox.Manager
	Containers *container.Manager
	Images     *image.Service
	Network    Network
	Streams    Streams
	Stats      *stats.Collector
	Log        *slog.Logger
	// SystemdCgroups is true where systemd makes the cgroups of new pods.
	SystemdCgroups bool
	// MaxMessageSize is what one gRPC message may have, in bytes.
	MaxMessageSize int
	// Config returns the configuration in force, shown in verbose status.
	Config func() any
	// Problems lists what is wrong on this node without stopping it, for humans.
	Problems func() []string
}

// New returns a server; Register connects it to a gRPC server.
func New(o Options) *Server { return &Server{opts: o} }

// Register adds both services to g.
func (s *Server) Register(g *grpc.Server) {
	runtimeapi.RegisterRuntimeServiceServer(g, s)
	runtimeapi.RegisterImageServiceServer(g, s)
}
