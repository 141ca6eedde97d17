// Package image pulls images into the store, resolves what people call them
// and removes them. How the bytes travel is a fetcher (see fetch.go); the
// rest of the package does not know.
package image

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/gantry-cri/gantry/internal/errkind"
	"github.com/gantry-cri/gantry/internal/storage"
)

// Service is the images of one instance. All methods may be called
// concurrently.
type Service struct {
	store   *storage.Store
	log     *slog.Logger
	flights flights
	setup   atomic.Pointer[setup] // never nil
	shared  *shared
}

// setup is what follows from the options. A pull keeps the one that it began with.
type setup struct {
	o      Options
	files  configFiles
	pinned pins
	fetch  fetcher
}

// now is the setup of what begins now.
func (s *Service) now() *setup { return s.setup.Load() }

// fetcher brings one image of a registry into the store. It reports
// failures with their kinds.
type fetcher interface {
	Fetch(ctx context.Context, c candidate, p *progress) (storage.Image, error)
}

// New prepares a service and removes what an earlier process left in TempDir.
// Broken registries.conf or policy.json files are errors of the pulls that
// need them, not of New.
func New(o Options) (*Service, error) {
	if o.Store == nil || o.TempDir == "" {
		return nil, errors.New("image service: no store or no temporary directory given")
	}
	o = o.withDefaults()
	s := &Service{store: o.Store, log: o.Log, shared: newShared()}
	if err := wipe(o.TempDir); err != nil {
		return nil, fmt.Errorf("image service: %w", err)
	}
	if err := s.Configure(o); err != nil {
		return nil, err
	}
	s.flights.init()
	return s, nil
}

// Configure replaces the options; pulls under way end with those that they began
// with. Store, TempDir and Log must be those that New was given. When it fails,
// nothing has changed.
func (s *Service) Configure(o Options) (err error) {
	o = o.withDefaults()
	next := &setup{o: o}
	if next.files, err = newConfigFiles(o); err != nil {
		return fmt.Errorf("image service: %w", err)
	}
	if next.pinned, err = parsePins(o.Pinned); err != nil {
		return fmt.Errorf("image service: pinned images: %w", err)
	}
	s.shared.slots.resize(int(o.MaxDownloads))
	next.fetch = newStreamFetcher(o, next.files, s.shared)
	s.setup.Store(next)
	return nil
}

func (o Options) withDefaults() Options {
	if o.StallTimeout == 0 {
		o.StallTimeout = DefaultStallTimeout
	}
	if o.MaxDownloads == 0 {
		o.MaxDownloads = DefaultMaxDownloads
	}
	if o.RetryDelay == 0 {
		o.RetryDelay = DefaultRetryDelay
	}
	if o.HelperTimeout == 0 {
		o.HelperTimeout = DefaultHelperTimeout
	}
	o.Limits = o.Limits.withDefaults()
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// Close abandons the transfers under way and waits for them to end.
func (s *Service) Close() error {
	s.flights.close()
	return nil
}

// List returns all images from memory, newest first; it never waits. The
// slice must not be changed.
func (s *Service) List() []storage.Image { return s.store.Images().List() }

// Remove removes the image that ref resolves to, with all its names; nil if
// there is none. An image whose layers a container uses goes out of sight at
// once, and its layers follow with the last such container.
func (s *Service) Remove(ctx context.Context, ref string) error {
	img, err := s.Resolve(ref)
	if errkind.Of(err) == errkind.NotFound {
		return nil
	}
	if err != nil {
		return err
	}
	if err := s.store.Remove(ctx, img.ID); err != nil {
		return err
	}
	s.log.Info("image removed", "image", img.ID, "names", img.Names)
	return nil
}

// Usage is what images and writable container layers occupy, from memory.
func (s *Service) Usage() (images, containers storage.Usage) {
	return s.store.ImageUsage(), s.store.ContainersUsage()
}

// wipe makes dir an empty directory.
func wipe(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}
