package storage

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"go.podman.io/storage/pkg/ioutils"
	"go.podman.io/storage/pkg/lockfile"
)

// recordLayers adds layers to the library's records, under its lock and in
// its format: layers.json, a JSON array that it reads anew when the lock file
// says that somebody wrote. The records that are there are copied as they are.
func (s *Store) recordLayers(layers []NewLayer) (err error) {
	if len(layers) == 0 {
		return nil
	}
	dir := filepath.Join(s.graphRoot(), "overlay-layers")
	lock, err := lockfile.GetLockFile(filepath.Join(dir, "layers.lock"))
	if err != nil {
		return fmt.Errorf("lock layer records: %w", err)
	}
	if err := s.writeRecords(lock, filepath.Join(dir, "layers.json"), layers); err != nil {
		return err
	}
	// The library must see what was written, or the format has changed.
	for _, l := range layers {
		if rec, err := s.lib.Layer(l.ID); err != nil || rec.Parent != l.Parent || rec.UncompressedDigest != l.DiffID {
			return errors.Join(fmt.Errorf("layer %s is not in the records after writing them", l.ID), err)
		}
	}
	return nil
}

func (s *Store) writeRecords(lock *lockfile.LockFile, path string, layers []NewLayer) error {
	lock.Lock()
	defer lock.Unlock()
	records, err := readRecords(path)
	if err != nil {
		return err
	}
	now := time.Now().UTC()
	for _, l := range layers {
		body, err := json.Marshal(l.libraryLayer(now))
		if err != nil {
			return fmt.Errorf("record of layer %s: %w", l.ID, err)
		}
		records = append(records, body)
	}
	body, err := json.Marshal(records)
	if err != nil {
		return fmt.Errorf("layer records: %w", err)
	}
	// Before the file, as a reader that finds no sign would not look.
	if _, err := lock.RecordWrite(); err != nil {
		return fmt.Errorf("lock layer records: %w", err)
	}
	if err := ioutils.AtomicWriteFile(path, body, 0o600); err != nil {
		return fmt.Errorf("write layer records: %w", err)
	}
	return nil
}

func readRecords(path string) ([]json.RawMessage, error) {
	body, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(body) == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read layer records: %w", err)
	}
	var records []json.RawMessage
	if err := json.Unmarshal(body, &records); err != nil {
		return nil, fmt.Errorf("read layer records %s: %w", path, err)
	}
	return records, nil
}
