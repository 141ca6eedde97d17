package oci

import (
	"context"
	"os/exec"
	"time"

	rspec "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-spec/specs-go/features"
	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ContainerSpec ...
func ContainerSpec(in ContainerInput) (*rspec.Spec, error) { return nil, nil }

// SandboxSpec ...
func SandboxSpec(in SandboxInput) (*rspec.Spec, error) { return nil, nil }

// ResolveUser ...
func ResolveUser(sc *runtimeapi.LinuxContainerSecurityContext, imageUser string, passwd, group []byte) (User, error) {
	return User{}, nil
}

// PrepareOptions ...
type PrepareOptions struct {
	// SeccompProfile is the path of the profile for RuntimeDefault; "" is the built-in one.
	SeccompProfile string
}

// Prepare ...
func Prepare(config *runtimeapi.ContainerConfig, o PrepareOptions) (HostFacts, error) {
	return HostFacts{}, nil
}

// PrepareSandbox returns the seccomp profile for SandboxInput.Seccomp.
func PrepareSandbox(config *runtimeapi.PodSandboxConfig, o PrepareOptions) ([]byte, error) {
	return nil, nil
}

// Runtime ...
type Runtime struct{}

// NewRuntime ...
func NewRuntime(ctx context.Context, handler, path, root string) (*Runtime, error) { return nil, nil }

// Handler ...
func (r *Runtime) Handler() string { return "" }

// Path ...
func (r *Runtime) Path() string { return "" }

// Root ...
func (r *Runtime) Root() string { return "" }

// Version ...
func (r *Runtime) Version() string { return "" }

// OCIVersion ...
func (r *Runtime) OCIVersion() string { return "" }

// Features is nil where the binary has no features command.
func (r *Runtime) Features() *features.Features { return nil }

// CreateArgs ...
type CreateArgs struct{ ID, Bundle, PidFile, ConsoleSocket string }

// CreateArgs ...
func (r *Runtime) CreateArgs(a CreateArgs) []string { return nil }

// Start ...
func (r *Runtime) Start(ctx context.Context, id string) error { return nil }

// Kill ...
func (r *Runtime) Kill(ctx context.Context, id string, sig unix.Signal, all bool) error { return nil }

// Delete ...
func (r *Runtime) Delete(ctx context.Context, id string, force bool) error { return nil }

// State ...
func (r *Runtime) State(ctx context.Context, id string) (State, error) { return State{}, nil }

// List ...
func (r *Runtime) List(ctx context.Context) ([]State, error) { return nil, nil }

// State is what the runtime says of a container.
type State struct {
	ID     string `json:"id"`
	Status string `json:"status"`
	PID    int    `json:"pid"`
	Bundle string `json:"bundle"`
}

// ExecSyncOptions ...
type ExecSyncOptions struct {
	Args    []string
	Timeout time.Duration // 0: only ctx bounds it
	// MaxOutput bounds each of stdout and stderr, in bytes; 0 is DefaultMaxOutput.
	MaxOutput int
	// Dir is where the pid file goes, for as long as the call lasts.
	Dir string
	// CgroupProcs are the files that list the container's processes: cgroup.ProcsFiles.
	CgroupProcs []string
}

// ExecResult ...
type ExecResult struct {
	Stdout, Stderr []byte
	ExitCode       int
	Truncated      bool
}

// ExecSync ...
func (r *Runtime) ExecSync(ctx context.Context, id string, o ExecSyncOptions) (ExecResult, error) {
	return ExecResult{}, nil
}

// ExecCommand ...
func (r *Runtime) ExecCommand(ctx context.Context, id string, args []string, tty bool, pidFile, consoleSocket string) *exec.Cmd {
	return nil
}
