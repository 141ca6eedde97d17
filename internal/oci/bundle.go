package oci

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	rspec "github.com/opencontainers/runtime-spec/specs-go"
)

// WriteBundle writes spec as config.json into the bundle's directory, which
// must exist.
func WriteBundle(dir string, spec *rspec.Spec) error {
	text, err := json.Marshal(spec)
	if err != nil {
		return fmt.Errorf("encode the OCI spec: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), text, 0o600); err != nil {
		return fmt.Errorf("write the OCI spec: %w", err)
	}
	return nil
}

// SharesKernel reports whether a container's init is a process of this node's
// kernel, which can be sent signals directly. It is false for runtimes that
// are not known to be of that kind (runsc, kata): those must be asked.
func (r *Runtime) SharesKernel() bool {
	return slices.Contains([]string{"crun", "runc", "youki"}, r.Name())
}

// RecursiveReadOnly reports whether the runtime makes mounts read-only with
// all that is mounted below them (mount option rro). crun has done so for
// longer than it has told its features.
func (r *Runtime) RecursiveReadOnly() bool {
	if f := r.Features(); f != nil {
		return slices.Contains(f.MountOptions, "rro")
	}
	return r.Name() == "crun"
}
