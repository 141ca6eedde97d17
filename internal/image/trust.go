package image

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"
	"go.podman.io/image/v5/docker"
	"go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/image"
	"go.podman.io/image/v5/manifest"
	"go.podman.io/image/v5/signature"
	libstorage "go.podman.io/image/v5/storage"
	"go.podman.io/image/v5/types"

	"github.com/gantry-cri/gantry/internal/errkind"
	"github.com/gantry-cri/gantry/internal/storage"
)

// Use is what a stored image is wanted for.
type Use struct {
	Namespace string // of the pod
	Name      string // what its author calls the image; "" or an id if that is not known
}

// Allow asks the policy of a pod's namespace for a stored image, with the
// signatures that were pulled with it and without the network: it may have
// been pulled under another policy. The policy is asked for the name that the
// pod's author wrote; for an image that he named by its id, for each of its
// names. Kinds: Denied (then it wraps ErrPolicy), Precondition for a broken policy.
func (s *Service) Allow(ctx context.Context, img storage.Image, use Use) error {
	file, err := s.now().files.policyFile(use.Namespace)
	if err != nil {
		return err
	}
	policy, err := readPolicy(file)
	if err != nil || acceptsAnything(policy) {
		return err
	}
	if err := s.askStored(ctx, policy, img, s.namesOf(img, use.Name)); err != nil {
		return fmt.Errorf("image %s: %w (policy %s)", img.ID, err, file)
	}
	return nil
}

// namesOf are the names by which a policy may know a stored image.
func (s *Service) namesOf(img storage.Image, called string) []string {
	asked, _ := s.localNames(called) // what is no name is an id
	var repos []string
	for _, named := range asked {
		if slices.Contains(img.Names, named.String()) {
			return []string{named.String()}
		}
		if digested, ok := named.(reference.Digested); ok && slices.Contains(img.Digests, digested.Digest()) {
			repos = append(repos, named.Name())
		}
	}
	for _, named := range asked { // a tag that has moved on
		repos = append(repos, named.Name())
	}
	var names []string
	for _, name := range img.Names {
		if slices.Contains(repos, storage.RepoOf(name)) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return img.Names
	}
	return names
}

// askStored asks the policy until it accepts one of the image's names and manifests.
func (s *Service) askStored(ctx context.Context, policy *signature.Policy, img storage.Image, names []string) (err error) {
	src, err := s.storedSource(ctx, img)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	answer := errkind.Errorf(errkind.Denied, "%w: it has no name that a policy could be for", ErrPolicy)
	for _, name := range names {
		named, err := reference.ParseNormalizedNamed(name)
		if err != nil {
			return fmt.Errorf("name %q: %w", name, err)
		}
		ref, err := docker.NewReference(named)
		if err != nil {
			return fmt.Errorf("name %q: %w", name, err)
		}
		for _, d := range img.Digests {
			if isIndex(ctx, src, d) {
				continue
			}
			stored := image.UnparsedInstance(src, &d)
			if err := ask(ctx, policy, image.UnparsedInstanceWithReference(stored, ref)); err == nil {
				return nil
			} else {
				answer = fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return answer
}

// storedSource reads a stored image's manifests and signatures.
func (s *Service) storedSource(ctx context.Context, img storage.Image) (types.ImageSource, error) {
	ref, err := libstorage.Transport.NewStoreReference(s.store.Library(), nil, img.ID)
	if err != nil {
		return nil, fmt.Errorf("stored image: %w", err)
	}
	src, err := ref.NewImageSource(ctx, s.now().files.system())
	if err != nil {
		return nil, fmt.Errorf("stored image: %w", err)
	}
	return src, nil
}

// isIndex reports whether a stored document leads to images instead of being
// one's manifest; signatures are of manifests.
func isIndex(ctx context.Context, src types.ImageSource, d digest.Digest) bool {
	_, mediaType, err := src.GetManifest(ctx, &d)
	return err != nil || manifest.MIMETypeIsMultiImage(mediaType)
}
