package oci

import (
	rspec "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ContainerSpec ...
func ContainerSpec(in ContainerInput) (*rspec.Spec, error) { return nil, nil }

// SandboxSpec ...
func SandboxSpec(in SandboxInput) (*rspec.Spec, error) { return nil, nil }

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
