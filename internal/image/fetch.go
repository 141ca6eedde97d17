package image

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/manifest"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/gantry-cri/gantry/internal/errkind"
	"github.com/gantry-cri/gantry/internal/storage"
)

// streamFetcher is the fetcher whose layers go from the registry into their
// directories in one pass, several at a time. References, mirrors,
// credentials, TLS, manifests and policies are the library's.
type streamFetcher struct {
	store *storage.Store
	files configFiles
	o     Options
	log   *slog.Logger
	retry retrier
	*shared
}

// shared is what all fetchers of a service have in common.
type shared struct {
	chunks chunkPool
	unpack decompressor
	slots  slots
}

func newShared() *shared { return &shared{unpack: newDecompressor()} }

func newStreamFetcher(o Options, files configFiles, s *shared) *streamFetcher {
	return &streamFetcher{
		store: o.Store, files: files, o: o, log: o.Log, shared: s,
		retry: retrier{attempts: retryAttempts, delay: o.RetryDelay, log: o.Log},
	}
}

// Fetch brings the image that c names into the store and names it, from the
// first server that can give all of it. A name moves only to an image that is
// complete.
func (f *streamFetcher) Fetch(ctx context.Context, c candidate, p *progress) (storage.Image, error) {
	list, err := f.files.endpoints(c)
	if err != nil {
		return storage.Image{}, err
	}
	var errs []error
	for _, from := range list {
		var img storage.Image
		if img, err = f.attempt(ctx, c, from, p); err == nil {
			return img, nil
		}
		if from.repo != c.ref.Name() {
			err = fmt.Errorf("from %s: %w", from.repo, err)
		}
		errs = append(errs, err)
		if ctx.Err() != nil || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
			break // another server changes nothing
		}
		if !from.last {
			f.log.Warn("mirror failed, trying the next", "name", c.ref, "mirror", from.repo, "err", err)
		}
	}
	// What the registry itself says is the truth about the image.
	return storage.Image{}, errkind.Wrap(errkind.Of(err), errors.Join(errs...))
}

// attempt is the transfer from one server.
func (f *streamFetcher) attempt(ctx context.Context, c candidate, from endpoint, p *progress) (storage.Image, error) {
	p.from(from.repo)
	ctx, w := newWatch(ctx, f.o.StallTimeout, p)
	defer w.close()
	sys, done, err := f.credentials(ctx, c, from)
	if err != nil {
		return storage.Image{}, fmt.Errorf("%s: %w", c.ref, err)
	}
	defer done()
	c.sys = sys
	retry := f.retry
	if !from.last {
		retry.attempts = mirrorAttempts
	}
	img, err := f.transfer(ctx, c, retry, w)
	if err != nil {
		return storage.Image{}, fmt.Errorf("%s: %w", c.ref, classify(w.explain(ctx, err)))
	}
	return img, nil
}

// transfer stores the image and names it.
func (f *streamFetcher) transfer(ctx context.Context, c candidate, retry retrier, w *watch) (img storage.Image, err error) {
	policy, err := readPolicy(c.policy)
	if err != nil {
		return img, err
	}
	src, err := f.open(ctx, c, retry, w)
	if err != nil {
		return img, err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	found, err := selectImage(ctx, src, c.sys)
	if err != nil {
		return img, err
	}
	names, err := storedNames(c.ref, found.top)
	if err != nil {
		return img, err
	}
	// Before anything else of the image is read.
	if err := f.allow(ctx, found, policy, w); err != nil {
		return img, err
	}
	if src.keys, err = f.unlock(found); err != nil {
		return img, err
	}
	if img, ok, err := f.known(ctx, found, names); ok || err != nil {
		return img, err
	}
	defer f.store.BeginTransfer()()
	jobs, rec, err := found.describe(ctx, c.sys)
	if err == nil {
		err = f.o.Limits.layers(jobs)
	}
	if err != nil {
		return img, err
	}
	rec.Signatures = f.signatures(ctx, found)
	if err := f.layers(ctx, src, reference.Domain(c.ref), jobs); err != nil {
		return img, err
	}
	if err := ctx.Err(); err != nil {
		return img, err
	}
	if err := f.store.PutImage(rec); err != nil {
		return img, err
	}
	return f.store.Adopt(rec.ID, names)
}

// known names an image that is stored, whole, by the very documents that were
// found. That is what most pulls come to, and no more is asked of a registry.
func (f *streamFetcher) known(ctx context.Context, found found, names []string) (img storage.Image, ok bool, err error) {
	digests := []digest.Digest{found.top}
	for _, body := range append([][]byte{found.manifest}, found.indexes...) {
		d, err := manifest.Digest(body)
		if err != nil {
			return img, false, fmt.Errorf("digest of manifest: %w", err)
		}
		digests = append(digests, d)
	}
	img, ok = f.store.Images().ByManifests(digests)
	if !ok {
		return img, false, nil
	}
	if len(f.signatures(ctx, found)) > 0 { // perhaps new ones
		return img, false, nil
	}
	for _, layer := range img.Layers {
		if !f.store.IntactLayer(layer) {
			return img, false, nil
		}
	}
	return f.store.AddNames(img.ID, names)
}

// layers makes sure that all layers are stored and whole: those that are not
// are fetched, at the same time, and committed together.
func (f *streamFetcher) layers(ctx context.Context, src *watchedSource, registry string, jobs []layerJob) error {
	start := time.Now()
	missing := f.missing(jobs)
	src.w.progress.missing(missing)
	fetched := make([]storage.NewLayer, len(missing))
	defer func() {
		for _, l := range fetched {
			if l.Staged != nil {
				l.Staged.Discard() // nothing, if it was committed
			}
		}
	}()
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(int(f.o.MaxDownloads))
	for i, job := range missing {
		group.Go(func() (err error) {
			release, err := f.slots.take(ctx, registry)
			if err != nil {
				return err
			}
			defer release()
			if fetched[i], err = f.layer(ctx, src, job); err == nil {
				src.w.progress.layerDone()
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if len(missing) == 0 {
		return nil
	}
	downloaded := time.Since(start)
	err := f.store.CommitLayers(fetched)
	f.log.Debug("layers stored", "layers", len(jobs), "fetched", len(missing), "download", downloaded, "commit", time.Since(start)-downloaded)
	return err
}

// missing are the layers that the store has not got, or not whole any more.
func (f *streamFetcher) missing(jobs []layerJob) []layerJob {
	healthy := make([]bool, len(jobs))
	var group errgroup.Group
	group.SetLimit(int(f.o.MaxDownloads))
	for i, job := range jobs {
		group.Go(func() error {
			healthy[i] = f.store.IntactLayer(job.id)
			return nil
		})
	}
	_ = group.Wait() // none of them fails
	var missing []layerJob
	for i, job := range jobs {
		if !healthy[i] {
			missing = append(missing, job)
		}
	}
	return missing
}

// slots limit the downloads from each registry, of all images together.
type slots struct {
	mu   sync.Mutex // guards what follows
	size int
	used map[string]chan struct{}
}

// resize changes how many there are; those that are taken don't count then.
func (s *slots) resize(size int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.size != size {
		s.size, s.used = size, map[string]chan struct{}{}
	}
}

// take waits for a slot; release gives it back.
func (s *slots) take(ctx context.Context, registry string) (release func(), err error) {
	s.mu.Lock()
	slot, ok := s.used[registry]
	if !ok {
		slot = make(chan struct{}, s.size)
		s.used[registry] = slot
	}
	s.mu.Unlock()
	select {
	case slot <- struct{}{}:
		return func() { <-slot }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}
