package storage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/opencontainers/go-digest"
	cstorage "go.podman.io/storage"
	drivers "go.podman.io/storage/drivers"
	"go.podman.io/storage/pkg/archive"
	"golang.org/x/sys/unix"
)

// NewLayer is a staged layer and its place.
type NewLayer struct {
	ID     string // of ChainIDs
	Parent string // "" for the lowest
	DiffID digest.Digest
	Size   int64         // of the uncompressed archive
	Blob   digest.Digest // "" where nobody has seen all of it
	Staged *Staged
	Pieces []Piece // by which later pulls find what is in it; may be empty

	BlobSize    int64
	Compression archive.Compression
}

// CommitLayers makes staged layers part of the store, bottom first: all of
// them with one write of the library's records, which would take three synced
// writes per layer by its own means. A layer that is there already gets the
// new files if its own are damaged. The caller has called BeginTransfer.
//
// The files may be lost with power before the transfer's end has been synced
// in the background; then Open drops the layers and the images that need them.
func (s *Store) CommitLayers(layers []NewLayer) error {
	s.records.Lock()
	defer s.records.Unlock()
	driver, err := s.lib.GraphDriver()
	if err != nil {
		return fmt.Errorf("commit layers: %w", err)
	}
	if err := s.unsynced.note(layers); err != nil {
		return fmt.Errorf("commit layers: %w", err)
	}
	var fresh []NewLayer
	for _, l := range layers {
		var err error
		if _, missing := s.lib.Layer(l.ID); missing == nil {
			err = s.heal(driver, l)
		} else if err = s.place(driver, l); err == nil {
			fresh = append(fresh, l)
		}
		if err != nil {
			return errors.Join(fmt.Errorf("commit layer %s: %w", l.ID, err), s.unplace(driver, fresh))
		}
	}
	if err := s.recordLayers(fresh); err != nil {
		return errors.Join(fmt.Errorf("commit layers: %w", err), s.unplace(driver, fresh))
	}
	for _, l := range layers {
		s.usage.noteLayer(l.ID, l.Staged.usage)
		s.noteShape(l.ID)
		s.notePieces(l)
	}
	return nil
}

// place gives a staged layer its directory. Without a record it is an orphan
// that the library removes at the next start.
func (s *Store) place(driver drivers.Driver, l NewLayer) error {
	if err := s.putAside(filepath.Join(s.graphRoot(), "overlay", l.ID)); err != nil { // its record was lost
		return err
	}
	if err := driver.Create(l.ID, l.Parent, nil); err != nil {
		return err
	}
	dir, err := s.layerDir(l.ID)
	if err != nil {
		return err
	}
	if err := l.Staged.settleRoot(dir); err != nil {
		return err
	}
	if err := unix.Renameat2(unix.AT_FDCWD, l.Staged.dir, unix.AT_FDCWD, dir, unix.RENAME_EXCHANGE); err != nil {
		return fmt.Errorf("rename %s: %w", l.Staged.dir, err)
	}
	empty := l.Staged.dir
	l.Staged.dir = ""
	return os.Remove(empty)
}

// unplace undoes place.
func (s *Store) unplace(driver drivers.Driver, layers []NewLayer) error {
	var errs []error
	for i := len(layers) - 1; i >= 0; i-- {
		errs = append(errs, driver.Remove(layers[i].ID))
	}
	return errors.Join(errs...)
}

// heal replaces the files of a stored layer if they are damaged. Containers
// that run on them keep them: the old directory is put aside until none runs.
func (s *Store) heal(driver drivers.Driver, l NewLayer) error {
	if s.HealthyLayer(l.ID) {
		return nil // another transfer was quicker; Discard takes ours
	}
	dir, err := s.layerDir(l.ID)
	if err != nil || !isDirectory(dir) {
		// The driver's own files are gone too, or may be.
		if err := s.putAside(filepath.Dir(dir)); err != nil {
			return err
		}
		return errors.Join(s.place(driver, l), s.rewriteNotes(l))
	}
	if err := l.Staged.settleRoot(dir); err != nil {
		return err
	}
	if err := unix.Renameat2(unix.AT_FDCWD, l.Staged.dir, unix.AT_FDCWD, dir, unix.RENAME_EXCHANGE); err != nil {
		return fmt.Errorf("rename %s: %w", l.Staged.dir, err)
	}
	old := l.Staged.dir
	l.Staged.dir = ""
	return errors.Join(s.putAside(old), s.rewriteNotes(l))
}

// rewriteNotes records what a healed layer looks like now.
func (s *Store) rewriteNotes(l NewLayer) error {
	return s.lib.SetMetadata(l.ID, layerNotes{l.Staged.print}.String())
}

// putAside takes a damaged directory out of the way; nil if there is none.
func (s *Store) putAside(dir string) error {
	if dir == "." || !isDirectory(dir) {
		return nil
	}
	if !s.anyRootFS() {
		return s.trash.move(dir)
	}
	s.setAside(true)
	return os.Rename(dir, filepath.Join(s.damagedDir(), strconv.FormatInt(time.Now().UnixNano(), 10)))
}

// setAside notes whether damaged layers wait for the last container to go.
func (s *Store) setAside(waits bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.aside = waits
}

// emptyDamaged deletes what was put aside, once no container can use it.
func (s *Store) emptyDamaged() {
	entries, err := os.ReadDir(s.damagedDir())
	if err != nil || len(entries) == 0 {
		return
	}
	if s.anyRootFS() {
		s.setAside(true) // tried again when the last container goes
		return
	}
	s.setAside(false)
	for _, e := range entries {
		if err := s.trash.move(filepath.Join(s.damagedDir(), e.Name())); err != nil {
			s.log.Warn("damaged layer not removed", "dir", e.Name(), "err", err)
		}
	}
}

func (s *Store) anyRootFS() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.uses) > 0
}

func (s *Store) damagedDir() string { return filepath.Join(s.root, "damaged") }

func isDirectory(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.IsDir()
}

// libraryLayer is the library's record of a layer.
func (l NewLayer) libraryLayer(now time.Time) cstorage.Layer {
	return cstorage.Layer{
		ID:                 l.ID,
		Parent:             l.Parent,
		Created:            now,
		CompressedDigest:   l.Blob,
		CompressedSize:     l.BlobSize,
		UncompressedDigest: l.DiffID,
		UncompressedSize:   l.Size,
		CompressionType:    l.Compression,
		Metadata:           layerNotes{l.Staged.print}.String(),
	}
}
