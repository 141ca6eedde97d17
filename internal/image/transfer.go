package image

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/opencontainers/go-digest"
	"go.podman.io/image/v5/copy"
	"go.podman.io/image/v5/docker"
	"go.podman.io/image/v5/manifest"
	istorage "go.podman.io/image/v5/storage"
	"go.podman.io/image/v5/types"

	"github.com/gantry-cri/gantry/internal/storage"
)

// copyFetcher is the fetcher that leaves the work to the library's copy.
type copyFetcher struct {
	store *storage.Store
	files configFiles
	o     Options
	log   *slog.Logger
}

// Fetch copies the image that c names into the store and names it. The image
// is first stored under its digest alone: a tag moves only to an image that
// is complete.
func (f *copyFetcher) Fetch(ctx context.Context, c candidate) (_ storage.Image, err error) {
	if err := f.files.checkBlocked(c.sys, c.ref.Name()); err != nil {
		return storage.Image{}, err
	}
	end := f.store.BeginTransfer()
	defer end()
	ctx, w := newWatch(ctx, f.o.StallTimeout)
	defer w.close()
	id, names, err := f.copy(ctx, c, w)
	if err != nil {
		return storage.Image{}, fmt.Errorf("%s: %w", c.ref, classify(w.explain(ctx, err)))
	}
	return f.store.Adopt(id, names)
}

// copy returns the id of the stored image and the names it shall have.
func (f *copyFetcher) copy(ctx context.Context, c candidate, w *watch) (id string, names []string, err error) {
	policy, destroy, err := f.files.policy()
	if err != nil {
		return "", nil, err
	}
	defer destroy()
	src, top, err := f.openSource(ctx, c, w)
	if err != nil {
		return "", nil, err
	}
	defer src.closeUnused()
	canonical, names, err := storedNames(c.ref, top)
	if err != nil {
		return "", nil, err
	}
	dest, err := istorage.Transport.NewStoreReference(f.store.Library(), canonical, "")
	if err != nil {
		return "", nil, fmt.Errorf("name %s in the store: %w", canonical, err)
	}
	_, err = copy.Image(ctx, policy, dest, src, &copy.Options{
		SourceCtx:            c.sys,
		DestinationCtx:       c.sys,
		MaxParallelDownloads: f.o.MaxDownloads,
	})
	if err != nil {
		return "", nil, err
	}
	_, stored, err := istorage.ResolveReference(dest)
	if err != nil {
		return "", nil, fmt.Errorf("find %s in the store: %w", canonical, err)
	}
	return stored.ID, names, nil
}

// openSource connects to the registry or to the first mirror that has the
// image, and returns the digest of its manifest or index.
func (f *copyFetcher) openSource(ctx context.Context, c candidate, w *watch) (*watchedRef, digest.Digest, error) {
	ref, err := docker.NewReference(c.ref)
	if err != nil {
		return nil, "", err
	}
	done := w.begin()
	src, err := ref.NewImageSource(ctx, c.sys)
	done()
	if err != nil {
		return nil, "", err
	}
	watched := &watchedRef{ImageReference: ref, source: &watchedSource{ImageSource: src, w: w}}
	blob, _, err := watched.source.GetManifest(ctx, nil)
	if err != nil {
		return nil, "", errors.Join(err, src.Close())
	}
	top, err := manifest.Digest(blob)
	if err != nil {
		return nil, "", errors.Join(err, src.Close())
	}
	return watched, top, nil
}

// watchedRef hands out the source that is open already.
type watchedRef struct {
	types.ImageReference
	source *watchedSource
	taken  bool
}

// NewImageSource returns the open source, once; the caller closes it.
func (r *watchedRef) NewImageSource(context.Context, *types.SystemContext) (types.ImageSource, error) {
	if r.taken {
		return nil, errors.New("image source opened twice")
	}
	r.taken = true
	return r.source, nil
}

// closeUnused closes the source if nobody took it.
func (r *watchedRef) closeUnused() {
	if !r.taken {
		_ = r.source.Close() // it was only read
	}
}
