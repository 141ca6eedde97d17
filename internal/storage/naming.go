package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/gantry-cri/gantry/internal/statefile"
)

const namingVersion = 1

// naming is names that an image was given and that the library's records may
// not have yet. Its file outlives the daemon, and no reboot: it is in the
// volatile directory, where no write waits for a disk.
type naming struct {
	Epoch string   `json:"epoch"`
	Image string   `json:"image"`
	Names []string `json:"names"`

	path string
}

// AddNames gives names to an image that is in the index, taking them from any
// other, and returns it; false if it is not there. Nothing waits for the disk:
// the library, whose records are synced with all that was written before them,
// is told in the background.
func (s *Store) AddNames(imageID string, names []string) (Image, bool, error) {
	img, ok := s.Images().ByID(imageID)
	if !ok || img.hasNames(names) {
		return img, ok, nil
	}
	n := naming{Epoch: s.unsynced.epoch, Image: imageID, Names: names, path: filepath.Join(s.namingDir(), s.nextNaming())}
	if err := statefile.Write(n.path, namingVersion, n); err != nil {
		return Image{}, false, fmt.Errorf("name image %s: %w", imageID, err)
	}
	s.mu.Lock()
	x := s.index.Load().named(n)
	img, ok = x.ByID(imageID)
	if ok {
		s.namings = append(s.namings, n)
		s.index.Store(x)
	}
	s.mu.Unlock()
	if !ok { // removed meanwhile
		return Image{}, false, statefile.Remove(n.path)
	}
	s.tasks.Go(s.recordNames)
	return img, true, nil
}

func (img Image) hasNames(names []string) bool {
	return !slices.ContainsFunc(names, func(n string) bool { return !slices.Contains(img.Names, n) })
}

// nextNaming is the name of a file that sorts after those before it.
func (s *Store) nextNaming() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.namingSerial = max(s.namingSerial+1, time.Now().UnixNano())
	return strconv.FormatInt(s.namingSerial, 36)
}

// recordNames is the background part of AddNames.
func (s *Store) recordNames() {
	s.records.Lock()
	defer s.records.Unlock()
	if err := s.recordNamesLocked(); err != nil {
		s.log.Warn("names of images not recorded, tried again with the next one", "err", err)
	}
}

// recordNamesLocked brings the names into the library's records, in the order
// in which they were given. Caller holds s.records.
func (s *Store) recordNamesLocked() error {
	for {
		s.mu.Lock()
		if len(s.namings) == 0 {
			s.mu.Unlock()
			return nil
		}
		n := s.namings[0]
		s.mu.Unlock()
		if err := s.recordNaming(n); err != nil {
			return err
		}
		s.mu.Lock()
		s.namings = s.namings[1:]
		s.mu.Unlock()
	}
}

func (s *Store) recordNaming(n naming) error {
	if s.lib.Exists(n.Image) {
		if err := s.lib.AddNames(n.Image, n.Names); err != nil {
			return fmt.Errorf("name image %s: %w", n.Image, err)
		}
	}
	return statefile.Remove(n.path)
}

// dropNamingsLocked forgets the names of an image that is being removed. Caller
// holds s.records and s.mu.
func (s *Store) dropNamingsLocked(imageID string) (files []string) {
	kept := make([]naming, 0, len(s.namings))
	for _, n := range s.namings {
		if n.Image == imageID {
			files = append(files, n.path)
		} else {
			kept = append(kept, n)
		}
	}
	s.namings = kept
	return files
}

// loadNamings records the names that an earlier process could not. A file that
// can't be read was being written when it ended; one of another epoch may have
// come back with a power loss, although what it says was recorded long ago.
func (s *Store) loadNamings() error {
	entries, err := os.ReadDir(s.namingDir())
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries { // sorted by name
		n := naming{path: filepath.Join(s.namingDir(), e.Name())}
		if err := statefile.Read(n.path, namingVersion, &n); err != nil || s.removed[n.Image] || n.Epoch != s.unsynced.epoch {
			err = os.Remove(n.path)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
			continue
		}
		errs = append(errs, s.recordNaming(n))
	}
	return errors.Join(errs...)
}

// named is the index after n.
func (x *Index) named(n naming) *Index {
	if _, ok := x.byID[n.Image]; !ok {
		return x
	}
	images := slices.Clone(x.images)
	for i := range images {
		taken := func(name string) bool { return slices.Contains(n.Names, name) }
		switch img := &images[i]; {
		case img.ID == n.Image:
			img.Names = slices.Compact(slices.Sorted(slices.Values(slices.Concat(img.Names, n.Names))))
		case slices.ContainsFunc(img.Names, taken):
			img.Names = slices.DeleteFunc(slices.Clone(img.Names), taken)
		}
	}
	y := newIndex(images)
	y.problems = x.problems
	return y
}

func (s *Store) namingDir() string { return filepath.Join(s.runRoot, "naming") }
