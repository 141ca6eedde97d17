// Package image pulls images into the store, resolves what people call them
// and removes them.
package image

import (
	"context"
	"errors"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/internal/storage"
)

// Service is the images of one instance.
type Service struct{}

// New prepares a service and removes what an earlier process left in TempDir.
// Broken registries.conf or policy.json files are errors of the pulls that
// need them, not of New.
func New(o Options) (*Service, error) { return nil, errors.New("image: not yet") }

// Pull fetches an image and returns it. Concurrent calls for one name with
// the same credentials share one transfer; it goes on when ctx ends, and a
// retry joins it. Kinds: NotFound, Denied (credentials or policy), Invalid,
// Unavailable, Timeout (stalled), Exhausted (disk).
func (s *Service) Pull(ctx context.Context, r PullRequest) (storage.Image, error) {
	return storage.Image{}, errors.New("image: not yet")
}

// Resolve finds a stored image by name (short names too), name@digest, id
// with or without sha256:, or unambiguous id prefix. Kinds: NotFound, Invalid.
func (s *Service) Resolve(ref string) (storage.Image, error) {
	return storage.Image{}, errors.New("image: not yet")
}

// List returns all images from memory; it never waits.
func (s *Service) List() []storage.Image { return nil }

// Remove removes the image that ref resolves to, with all its names; nil if
// there is none.
func (s *Service) Remove(ctx context.Context, ref string) error { return nil }

// CRI is an image as ListImages and ImageStatus tell it.
func (s *Service) CRI(img storage.Image) *runtimeapi.Image { return &runtimeapi.Image{} }

// Info is ImageStatus's verbose map: one key "info" with JSON.
func (s *Service) Info(img storage.Image) (map[string]string, error) { return nil, nil }

// FsInfo is the answer of ImageFsInfo, from memory.
func (s *Service) FsInfo() *runtimeapi.ImageFsInfoResponse { return nil }

// Usage is what images and writable container layers occupy, from memory.
func (s *Service) Usage() (images, containers storage.Usage) { return }
