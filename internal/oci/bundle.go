package oci

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

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
