package image

import (
	"context"
	"slices"

	"github.com/gantry-cri/gantry/internal/storage"
)

// Pinned tells whether an image must not be collected.
func (s *Service) Pinned(img storage.Image) bool {
	return slices.ContainsFunc(img.Names, s.now().pinned.match)
}

// InUse tells whether a container has the image, as its own or as a volume.
func (s *Service) InUse(img storage.Image) bool { return s.store.InUse(img.ID) }

// Damaged lists the layers of an image, top first, whose files are not as they
// were unpacked: names, kinds, sizes, owners, modes or times. It reads every
// directory of the image. The next pull of the image replaces them.
func (s *Service) Damaged(ctx context.Context, img storage.Image) ([]string, error) {
	var damaged []string
	for _, layer := range img.Layers {
		if err := ctx.Err(); err != nil {
			return damaged, err
		}
		if !s.store.HealthyLayer(layer) {
			damaged = append(damaged, layer)
		}
	}
	return damaged, nil
}

// Prune removes every image that is neither pinned nor in use, and returns
// them. After an error it has removed those that it returns.
func (s *Service) Prune(ctx context.Context) ([]storage.Image, error) {
	var removed []storage.Image
	for _, img := range s.List() {
		if s.Pinned(img) || s.InUse(img) {
			continue
		}
		if err := s.store.Remove(ctx, img.ID); err != nil {
			return removed, err
		}
		s.log.Info("image pruned", "image", img.ID, "names", img.Names)
		removed = append(removed, img)
	}
	return removed, nil
}
