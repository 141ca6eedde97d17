package oci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	rspec "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-spec/specs-go/features"
)

// probeTimeout bounds the probing of a binary.
const probeTimeout = 10 * time.Second

// oldestOCIVersion is what every runtime accepts that implements version 1 at all.
const oldestOCIVersion = "1.0.0"

// probed is what a binary says of itself.
type probed struct {
	name       string
	version    string
	ociVersion string
	features   *features.Features
}

// probe asks the binary for its version and its features. Nothing is created.
// A binary that can't even print its version does not work at all.
func (r *Runtime) probe(ctx context.Context) (probed, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	out, err := r.run(ctx, r.probeArgv("--version"), []string{"--version"})
	if err != nil {
		return probed{}, err
	}
	p := parseVersion(string(out))
	p.features, err = r.probeFeatures(ctx)
	if err != nil {
		return probed{}, err
	}
	if p.features != nil {
		p.ociVersion = p.features.OCIVersionMax
	}
	p.ociVersion = acceptedVersion(p.ociVersion)
	return p, nil
}

// probeFeatures returns nil where the binary has no features command.
// See https://github.com/opencontainers/runtime-spec/blob/main/features.md
func (r *Runtime) probeFeatures(ctx context.Context) (*features.Features, error) {
	out, err := r.run(ctx, r.probeArgv("features"), []string{"features"})
	if isCommandError(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var f features.Features
	if json.Unmarshal(out, &f) != nil {
		return nil, nil // some other command of that name
	}
	return &f, nil
}

// parseVersion reads what --version prints, by custom of all runtimes:
//
//	NAME version VERSION
//	...
//	spec: OCI-VERSION
//
// where the second is the version of the specification that the binary implements.
func parseVersion(text string) probed {
	var p probed
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if name, version, ok := strings.Cut(line, " version "); ok && p.version == "" {
			p.name, p.version = strings.TrimSpace(name), strings.TrimSpace(version)
		}
		if spec, ok := strings.CutPrefix(line, "spec:"); ok {
			p.ociVersion = strings.TrimSpace(spec)
		}
	}
	return p
}

// acceptedVersion is the version to write into specifications for a binary
// that says it knows those up to newest: that one, but none newer than what
// Gantry writes, and the oldest if the binary says nothing useful.
func acceptedVersion(newest string) string {
	theirs, err := parseSemver(newest)
	if err != nil || theirs[0] != 1 {
		return oldestOCIVersion
	}
	ours, err := parseSemver(rspec.Version)
	if err != nil {
		return oldestOCIVersion
	}
	for i := range ours {
		if ours[i] < theirs[i] {
			return rspec.Version
		}
		if ours[i] > theirs[i] {
			break
		}
	}
	return newest
}

// parseSemver reads the three numbers of a semantic version; what follows
// them after "-" or "+" is left out.
func parseSemver(version string) ([3]int, error) {
	core := version
	if i := strings.IndexAny(version, "-+"); i >= 0 {
		core = version[:i]
	}
	fields := strings.Split(core, ".")
	if len(fields) != 3 {
		return [3]int{}, errors.New("not a semantic version: " + strconv.Quote(version))
	}
	var out [3]int
	for i, field := range fields {
		n, err := strconv.ParseUint(field, 10, 31)
		if err != nil {
			return [3]int{}, fmt.Errorf("version %q: %w", version, err)
		}
		out[i] = int(n)
	}
	return out, nil
}

// ParseVersion reads what a runtime's --version prints: what it calls itself and
// its version. Both are "" if it says neither.
func ParseVersion(text string) (name, version string) {
	p := parseVersion(text)
	return p.name, p.version
}
