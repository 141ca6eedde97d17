package image

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"

	"go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/pkg/sysregistriesv2"
	"go.podman.io/image/v5/types"

	"github.com/gantry-cri/gantry/internal/errkind"
)

// endpoint is one server that should have an image: a mirror, or the registry
// itself.
type endpoint struct {
	repo string // where the bytes come from, as "mirror.example/library/nginx"
	sys  *types.SystemContext
	last bool // no other is left to try
}

// endpoints are the servers of an image in the order in which registries.conf
// wants them asked, the registry itself last; Denied if it blocks the registry. The library would try them by itself,
// but only for the manifest: a mirror that breaks later would fail the pull.
// So it is shown, for each, a configuration that has this one only. The
// reference stays the image's own, as the policy and the credentials are for it.
func (c configFiles) endpoints(of candidate) ([]endpoint, error) {
	reg, err := sysregistriesv2.FindRegistry(of.sys, of.ref.Name())
	if err != nil {
		return nil, errkind.Errorf(errkind.Precondition, "registries configuration: %w", err)
	}
	if reg == nil {
		return []endpoint{{of.ref.Name(), of.sys, true}}, nil
	}
	if reg.Blocked {
		return nil, errkind.Errorf(errkind.Denied, "%s is blocked by the registries configuration (prefix %q)", of.ref.Name(), reg.Prefix)
	}
	sources, err := reg.PullSourcesFromReference(of.ref)
	if err != nil {
		return nil, errkind.Errorf(errkind.Precondition, "registries configuration: %w", err)
	}
	list := make([]endpoint, 0, len(sources))
	for i, src := range sources {
		sys := *of.sys
		if len(sources) > 1 {
			if sys.SystemRegistriesConfPath, err = c.only(of.ref, src); err != nil {
				return nil, err
			}
			sys.SystemRegistriesConfDirPath = c.emptyDir()
		}
		list = append(list, endpoint{src.Reference.Name(), &sys, i == len(sources)-1})
	}
	return list, nil
}

// only writes the registries.conf that sends ref to src. The library remembers
// each by its path for ever, which says what is in it.
func (c configFiles) only(ref reference.Named, src sysregistriesv2.PullSource) (string, error) {
	text := fmt.Sprintf("[[registry]]\nprefix = %q\nlocation = %q\ninsecure = %t\n", ref.Name(), src.Reference.Name(), src.Endpoint.Insecure)
	sum := sha256.Sum256([]byte(text))
	path := filepath.Join(c.endpointDir(), hex.EncodeToString(sum[:16])+".conf")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	f, err := os.CreateTemp(c.endpointDir(), "new-")
	if err != nil {
		return "", err
	}
	_, err = f.WriteString(text)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name()) // the next start would
		return "", err
	}
	return path, nil
}
