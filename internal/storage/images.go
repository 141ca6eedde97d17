package storage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"

	cstorage "go.podman.io/storage"

	"github.com/gantry-cri/gantry/internal/errkind"
	"github.com/gantry-cri/gantry/internal/id"
	"github.com/gantry-cri/gantry/internal/statefile"
)

// BeginTransfer keeps layers from being deleted until the returned function
// is called: a transfer builds on layers that no image names yet. It waits
// for deletions under way. Calling end more than once is allowed.
func (s *Store) BeginTransfer() (end func()) {
	s.transfers.RLock()
	return sync.OnceFunc(func() {
		s.transfers.RUnlock()
		s.syncLayers()
		s.deleteRemoved()
	})
}

// Adopt gives names to an image that was just stored through Library, taking
// them from any other image, and publishes it.
func (s *Store) Adopt(imageID string, names []string) (Image, error) {
	s.records.Lock()
	defer s.records.Unlock()
	if err := s.recordNamesLocked(); err != nil { // these were given before
		return Image{}, err
	}
	if err := s.lib.AddNames(imageID, names); err != nil {
		return Image{}, fmt.Errorf("name image %s: %w", imageID, err)
	}
	if err := s.unmarkRemoved(imageID); err != nil {
		return Image{}, err
	}
	if err := s.refreshLocked(); err != nil {
		return Image{}, err
	}
	img, ok := s.Images().ByID(imageID)
	if !ok {
		return Image{}, fmt.Errorf("image %s: %w", imageID, errors.Join(s.Images().problems...))
	}
	return img, nil
}

// Remove removes an image with all its names. While a root filesystem or a
// running transfer may use its layers only the names go, and the layers
// follow as soon as nothing needs them, also after a restart. An image that is
// not stored is no error.
func (s *Store) Remove(_ context.Context, imageID string) error {
	if err := s.unlist(imageID); err != nil {
		return fmt.Errorf("remove image %s: %w", imageID, err)
	}
	s.deleteRemoved()
	return nil
}

// unlist takes the names and the index entry of an image, for good: the
// marker makes the next daemon leave it out too.
func (s *Store) unlist(imageID string) error {
	s.records.Lock()
	defer s.records.Unlock()
	if !id.Valid(imageID) {
		return errkind.Errorf(errkind.Invalid, "%q is not an image id", imageID)
	}
	if !s.lib.Exists(imageID) {
		return s.refreshLocked()
	}
	if err := os.WriteFile(filepath.Join(s.removedDir(), imageID), nil, 0o600); err != nil {
		return err
	}
	if err := s.lib.SetNames(imageID, nil); err != nil {
		return err
	}
	s.mu.Lock()
	s.removed[imageID] = true
	s.index.Store(s.index.Load().without(imageID))
	namings := s.dropNamingsLocked(imageID)
	s.mu.Unlock()
	var errs []error
	for _, path := range namings {
		errs = append(errs, statefile.Remove(path))
	}
	return errors.Join(errs...)
}

// deleteRemoved deletes the removed images that nothing uses, unless a
// transfer is under way: its end calls this again.
func (s *Store) deleteRemoved() {
	if !s.transfers.TryLock() {
		return
	}
	defer s.transfers.Unlock()
	s.records.Lock()
	defer s.records.Unlock()
	lost := s.layersOfLost()
	for imageID := range s.removedImages() {
		if s.InUse(imageID) || s.hasAnyOf(imageID, lost) {
			continue
		}
		// Nothing can start to use it: it is not in the index.
		if err := s.deleteImage(imageID); err != nil {
			s.log.Warn("image not deleted, tried again later", "image", imageID, "err", err)
		}
	}
	s.emptyDamaged()
	if s.hasOrphans() {
		if err := s.collectOrphans(); err != nil {
			s.log.Warn("layers without records not deleted, tried again later", "err", err)
		}
	}
	if ids := s.layerIDs(); ids != nil {
		s.usage.keepOnly(ids)
		s.shapes.keepOnly(ids)
		s.dropPieces(ids)
	}
}

func (s *Store) deleteImage(imageID string) error {
	_, err := s.lib.DeleteImage(imageID, true)
	// The library complains of missing layers after it removed the record.
	gone := errors.Is(err, cstorage.ErrNotAnImage) || errors.Is(err, cstorage.ErrLayerUnknown) && !s.lib.Exists(imageID)
	if err != nil && !gone {
		return err
	}
	s.files.forget(imageID)
	return s.unmarkRemoved(imageID)
}

// unmarkRemoved forgets that an image was removed. Caller holds s.records.
func (s *Store) unmarkRemoved(imageID string) error {
	if err := os.Remove(filepath.Join(s.removedDir(), imageID)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.removed, imageID)
	return nil
}

func (s *Store) loadRemoved() error {
	entries, err := os.ReadDir(s.removedDir())
	if err != nil {
		return err
	}
	for _, e := range entries {
		s.removed[e.Name()] = true
	}
	return nil
}

// removedImages is a copy of the set.
func (s *Store) removedImages() map[string]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.removed)
}

// reclaimLayers deletes broken image records and the layers that no image
// reaches: what an interrupted pull or removal left. Broken images that a
// container uses keep their layers, and where records were lost all layers stay
// until the next start, for the pulls that bring the images back.
func (s *Store) reclaimLayers() error {
	s.transfers.Lock()
	defer s.transfers.Unlock()
	s.records.Lock()
	defer s.records.Unlock()
	records, err := s.lib.Images()
	if err != nil {
		return fmt.Errorf("list images: %w", err)
	}
	removed := s.removedImages()
	var errs []error
	for _, rec := range records {
		if _, ok := s.Images().ByID(rec.ID); ok || removed[rec.ID] || s.InUse(rec.ID) {
			continue
		}
		s.log.Warn("deleting unusable image, a pull brings it back", "image", rec.ID, "names", rec.Names)
		errs = append(errs, s.deleteImage(rec.ID))
	}
	return errors.Join(append(errs, s.deleteUnreachableLayers(), s.refreshLocked())...)
}

// deleteUnreachableLayers deletes layers bottom up: children before parents.
// Caller holds s.transfers for writing.
func (s *Store) deleteUnreachableLayers() error {
	layers, err := s.lib.Layers()
	if err != nil {
		return fmt.Errorf("list layers: %w", err)
	}
	records, err := s.lib.Images()
	if err != nil {
		return fmt.Errorf("list images: %w", err)
	}
	parents := make(map[string]string, len(layers))
	for _, l := range layers {
		parents[l.ID] = l.Parent
	}
	needed, known := s.layersInUse()
	if !known || s.recordsLost {
		return nil
	}
	for _, rec := range records {
		for _, top := range append(slices.Clone(rec.MappedTopLayers), rec.TopLayer) {
			for l := top; l != "" && !needed[l]; l = parents[l] {
				needed[l] = true
			}
		}
	}
	var errs []error
	for _, l := range leavesFirst(parents) {
		if !needed[l] {
			errs = append(errs, s.lib.DeleteLayer(l))
		}
	}
	return errors.Join(errs...)
}

// leavesFirst orders the keys of a child -> parent map so that every child
// comes before its parent.
func leavesFirst(parents map[string]string) []string {
	depth := func(l string) int {
		n := 0
		for ; l != "" && n <= len(parents); l = parents[l] {
			n++
		}
		return n
	}
	layers := slices.Sorted(maps.Keys(parents))
	slices.SortStableFunc(layers, func(a, b string) int { return depth(b) - depth(a) })
	return layers
}

// layerIDs are all layers on disk; nil if they can't be listed.
func (s *Store) layerIDs() map[string]bool {
	layers, err := s.lib.Layers()
	if err != nil {
		s.log.Warn("layers not listed", "err", err)
		return nil
	}
	ids := make(map[string]bool, len(layers))
	for _, l := range layers {
		ids[l.ID] = true
	}
	return ids
}

// ImageCount tells how many images a store that nobody has open holds, by the
// library's records; those that can't be read count as none.
func ImageCount(root string) int {
	text, err := os.ReadFile(filepath.Join(root, "storage", "overlay-images", "images.json"))
	if err != nil {
		return 0
	}
	var images []json.RawMessage
	if json.Unmarshal(text, &images) != nil {
		return 0
	}
	return len(images)
}
