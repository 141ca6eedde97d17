package storage

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-cri/gantry/internal/statefile"
)

const unsyncedVersion = 1

// unsyncedLayers are the layers whose files may not be on the disk yet. Their
// ids are, before their records are: whatever power loss leaves of such a
// layer, the next start knows that it can't be trusted. So no pull waits for
// the disk, and every layer that stays listed is complete.
type unsyncedLayers struct {
	dir   string
	epoch string

	mu      sync.Mutex // guards the fields below
	serial  int64
	pending []string // marker files of this process
}

// unsyncedMarker is one file of the directory.
type unsyncedMarker struct {
	Epoch  string   `json:"epoch"`
	Layers []string `json:"layers"`
}

// note writes the marker of layers that are about to be recorded.
func (u *unsyncedLayers) note(layers []NewLayer) error {
	m := unsyncedMarker{Epoch: u.epoch}
	for _, l := range layers {
		m.Layers = append(m.Layers, l.ID)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.serial = max(u.serial+1, time.Now().UnixNano())
	path := filepath.Join(u.dir, strconv.FormatInt(u.serial, 36))
	if err := statefile.WriteSync(path, unsyncedVersion, m); err != nil {
		return fmt.Errorf("mark layers: %w", err)
	}
	u.pending = append(u.pending, path)
	return nil
}

// take returns the markers written so far; the caller syncs and removes them.
func (u *unsyncedLayers) take() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	taken := u.pending
	u.pending = nil
	return taken
}

// syncLayers brings what was committed to the disk, in the background.
func (s *Store) syncLayers() {
	markers := s.unsynced.take()
	if len(markers) == 0 {
		return
	}
	s.tasks.Go(func() {
		if err := s.syncMarkers(markers); err != nil {
			s.log.Error("layers not synced; they are fetched again after a power loss", "err", err)
		}
	})
}

func (s *Store) syncMarkers(markers []string) error {
	root, err := os.Open(s.root)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := unix.Syncfs(int(root.Fd())); err != nil {
		return fmt.Errorf("sync %s: %w", s.root, err)
	}
	var errs []error
	for _, path := range markers {
		errs = append(errs, statefile.Remove(path))
	}
	// A marker that came back would cost its layers.
	dir, err := os.Open(s.unsynced.dir)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	return errors.Join(append(errs, dir.Sync(), dir.Close())...)
}

// dropUnsynced handles the markers that an earlier process left: it syncs what
// was written since the file system was mounted, and deletes what may have
// been lost with it, layers and the images that need them.
func (s *Store) dropUnsynced() (problems []error) {
	entries, err := os.ReadDir(s.unsynced.dir)
	if err != nil {
		return []error{err}
	}
	var markers []string
	suspect := map[string]bool{}
	for _, e := range entries {
		path := filepath.Join(s.unsynced.dir, e.Name())
		if strings.HasSuffix(path, ".tmp") { // never finished: nothing was recorded after it
			if err := os.Remove(path); err != nil {
				problems = append(problems, err)
			}
			continue
		}
		markers = append(markers, path)
		var m unsyncedMarker
		if err := statefile.Read(path, unsyncedVersion, &m); err != nil {
			problems = append(problems, err)
			continue
		}
		if m.Epoch != s.unsynced.epoch {
			for _, l := range m.Layers {
				suspect[l] = true
			}
		}
	}
	if len(markers) == 0 {
		return problems
	}
	if err := s.deleteSuspects(suspect); err != nil {
		return append(problems, fmt.Errorf("delete layers that power loss may have damaged: %w", err))
	}
	if err := s.syncMarkers(markers); err != nil {
		problems = append(problems, err)
	}
	return problems
}

// deleteSuspects deletes layers, what is built on them, and the images of
// both. Nothing runs on them: the machine, or their file system, was down.
func (s *Store) deleteSuspects(suspect map[string]bool) error {
	layers, err := s.lib.Layers()
	if err != nil {
		return err
	}
	parents := make(map[string]string, len(layers))
	for _, l := range layers {
		parents[l.ID] = l.Parent
	}
	tainted := map[string]bool{}
	for l := range parents {
		for below, n := l, 0; below != "" && n <= len(parents); below, n = parents[below], n+1 {
			if suspect[below] {
				tainted[l] = true
			}
		}
	}
	if len(tainted) == 0 {
		return nil
	}
	s.log.Warn("dropping layers that may have been lost with power", "layers", slices.Sorted(maps.Keys(tainted)))
	records, err := s.lib.Images()
	if err != nil {
		return err
	}
	var errs []error
	for _, rec := range records {
		if !tainted[rec.TopLayer] {
			continue
		}
		s.log.Warn("dropping image that may have been lost with power, a pull brings it back", "image", rec.ID, "names", rec.Names)
		if _, err := s.lib.DeleteImage(rec.ID, true); err != nil && s.lib.Exists(rec.ID) {
			errs = append(errs, fmt.Errorf("image %s: %w", rec.ID, err))
		}
	}
	for _, l := range leavesFirst(parents) {
		if !tainted[l] {
			continue
		}
		if err := s.lib.DeleteLayer(l); err != nil && s.lib.Exists(l) { // most went with their image
			errs = append(errs, fmt.Errorf("layer %s: %w", l, err))
		}
	}
	return errors.Join(errs...)
}
