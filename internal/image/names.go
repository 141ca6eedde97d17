package image

import (
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
	"go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/pkg/shortnames"
	"go.podman.io/image/v5/pkg/sysregistriesv2"
	"go.podman.io/image/v5/types"

	"github.com/gantry-cri/gantry/internal/errkind"
	"github.com/gantry-cri/gantry/internal/storage"
)

// minIDPrefix is the shortest beginning of an id that names an image.
const minIDPrefix = 3

// Resolve finds a stored image by name (short names too), name@digest, id
// with or without sha256:, or unambiguous id prefix. Kinds: NotFound, and
// Invalid for what can't be a name or is ambiguous.
func (s *Service) Resolve(ref string) (storage.Image, error) {
	x := s.store.Images()
	if img, ok := x.ByName(ref); ok { // a full name as it is: no need to parse it
		return img, nil
	}
	hexID, explicit := strings.CutPrefix(ref, "sha256:")
	if img, ok := x.ByID(hexID); ok {
		return img, nil
	}
	if !explicit && len(hexID) != 64 {
		img, ok, err := s.byName(x, ref)
		if ok {
			return img, nil
		}
		if err != nil {
			return storage.Image{}, err
		}
	}
	if isHex(hexID) && len(hexID) >= minIDPrefix && len(hexID) <= 64 {
		switch found := x.ByIDPrefix(hexID); len(found) {
		case 0:
		case 1:
			return found[0], nil
		default:
			return storage.Image{}, errkind.Errorf(errkind.Invalid, "image %q is ambiguous: the ids of %d images start so", ref, len(found))
		}
	} else if explicit {
		return storage.Image{}, errkind.Errorf(errkind.Invalid, "image %q is not an id", ref)
	}
	return storage.Image{}, errkind.Errorf(errkind.NotFound, "image %q is not stored", ref)
}

func (s *Service) byName(x *storage.Index, ref string) (storage.Image, bool, error) {
	names, err := s.localNames(ref)
	if err != nil {
		return storage.Image{}, false, err
	}
	for _, named := range names {
		if digested, ok := named.(reference.Digested); ok {
			if img, ok := x.ByDigest(named.Name(), digested.Digest()); ok {
				return img, true, nil
			}
		} else if img, ok := x.ByName(named.String()); ok {
			return img, true, nil
		}
	}
	return storage.Image{}, false, nil
}

// localNames are the full names that ref may stand for among stored images.
func (s *Service) localNames(ref string) ([]reference.Named, error) {
	hub, err := reference.ParseDockerRef(ref)
	if err != nil {
		return nil, errkind.Errorf(errkind.Invalid, "image %q: %w", ref, err)
	}
	if !shortnames.IsShortName(ref) {
		return []reference.Named{hub}, nil
	}
	// A broken registries.conf must not hide what is stored.
	names, _ := shortnames.ResolveLocally(s.now().files.system(), ref)
	for i, named := range names {
		names[i] = trimTagOfDigested(named)
	}
	return append(names, hub), nil
}

// candidate is one place to pull an image from.
type candidate struct {
	ref    reference.Named // with a tag or a digest, not both
	sys    *types.SystemContext
	policy string // file of the signature policy
}

// candidates are the places to try, in order.
func (c configFiles) candidates(r PullRequest) ([]candidate, error) {
	if _, err := reference.ParseDockerRef(r.Image); err != nil {
		return nil, errkind.Errorf(errkind.Invalid, "%w", err)
	}
	if err := c.reload(); err != nil {
		return nil, err
	}
	names, err := c.remoteNames(r.Image)
	if err != nil {
		return nil, err
	}
	creds, err := parseAuth(r.Auth)
	if err != nil {
		return nil, err
	}
	list := make([]candidate, 0, len(names))
	for _, named := range names {
		sys := c.system()
		creds.apply(sys, reference.Domain(named), len(names) == 1)
		list = append(list, candidate{trimTagOfDigested(named), sys, r.policy})
	}
	return list, nil
}

// remoteNames are the full names that a name may stand for in registries. A
// short name for which registries.conf has neither an alias nor search
// registries is Docker Hub's, as Kubernetes documents it:
// https://kubernetes.io/docs/concepts/containers/images/#image-names
func (c configFiles) remoteNames(name string) ([]reference.Named, error) {
	sys := c.system()
	resolved, err := shortnames.Resolve(sys, name)
	if err != nil {
		search, confErr := sysregistriesv2.UnqualifiedSearchRegistries(sys)
		if confErr != nil || len(search) > 0 || !shortnames.IsShortName(name) {
			return nil, errkind.Wrap(errkind.Invalid, err)
		}
		hub, err := reference.ParseDockerRef(name)
		return []reference.Named{hub}, errkind.Wrap(errkind.Invalid, err)
	}
	names := make([]reference.Named, 0, len(resolved.PullCandidates))
	for _, c := range resolved.PullCandidates {
		names = append(names, c.Value)
	}
	return names, checkAmbiguous(sys, names)
}

// checkAmbiguous honours short-name-mode = "enforcing", which elsewhere asks
// the user at a terminal.
func checkAmbiguous(sys *types.SystemContext, candidates []reference.Named) error {
	if len(candidates) < 2 {
		return nil
	}
	configured := *sys
	configured.ShortNameMode = nil
	mode, err := sysregistriesv2.GetShortNameMode(&configured)
	if err != nil {
		return errkind.Errorf(errkind.Precondition, "registries configuration: %w", err)
	}
	if mode != types.ShortNameModeEnforcing {
		return nil
	}
	var names []string
	for _, c := range candidates {
		names = append(names, c.String())
	}
	return errkind.Errorf(errkind.Invalid, "short name is ambiguous and short-name-mode is enforcing: use one of %s", strings.Join(names, ", "))
}

// trimTagOfDigested makes name:tag@digest name@digest: the digest decides,
// and the tag may have moved since.
func trimTagOfDigested(named reference.Named) reference.Named {
	digested, ok := named.(reference.Digested)
	if !ok {
		return reference.TagNameOnly(named)
	}
	canonical, err := reference.WithDigest(reference.TrimNamed(named), digested.Digest())
	if err != nil {
		return named // it has been parsed with this digest
	}
	return canonical
}

// storedNames are the names that an image pulled as ref gets: the digest
// always, the tag if there is one.
func storedNames(ref reference.Named, d digest.Digest) ([]string, error) {
	canonical, err := reference.WithDigest(reference.TrimNamed(ref), d)
	if err != nil {
		return nil, fmt.Errorf("name %s@%s: %w", ref.Name(), d, err)
	}
	names := []string{canonical.String()}
	if _, ok := ref.(reference.Tagged); ok {
		names = append(names, ref.String())
	}
	return names, nil
}

func isHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
