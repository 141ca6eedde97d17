package storage

import (
	"maps"
	"slices"
)

// A use is what a container's root filesystem and volumes were made from.
type use struct {
	images []string // its own first
	layers []string // of all of them

	// unknown: the record can't be read, so that the container may use
	// anything.
	unknown bool
}

func useOf(images []Image) (u use) {
	for _, img := range images {
		u.images = append(u.images, img.ID)
		u.layers = append(u.layers, img.Layers...)
	}
	return u
}

func (r rootfsRecord) use() (u use) {
	for _, rec := range append([]layersRecord{r.layersRecord}, r.Volumes...) {
		u.images = append(u.images, rec.Image)
		u.layers = append(u.layers, rec.Layers...)
	}
	return u
}

// InUse reports whether a container was made from the image or has it as a
// volume, or may have been, because its record can't be read.
func (s *Store) InUse(imageID string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, used := range s.uses {
		if used.unknown || slices.Contains(used.images, imageID) {
			return true
		}
	}
	return false
}

// layersInUse are those that containers were made from, whatever the library's
// records say; known is false when a container may use any.
func (s *Store) layersInUse() (layers map[string]bool, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	layers = map[string]bool{}
	for _, used := range s.uses {
		if used.unknown {
			return nil, false
		}
		for _, l := range used.layers {
			layers[l] = true
		}
	}
	return layers, true
}

// collectOrphans deletes the directories of layers that have no record, which
// interrupted pulls leave. Where a container uses such a layer, because the
// records were damaged, all stay until it goes: the library knows no
// exceptions. Called before the store is used, or with s.transfers and
// s.records held.
func (s *Store) collectOrphans() error {
	used, known := s.layersInUse()
	wait := !known
	for l := range used {
		wait = wait || !s.lib.Exists(l)
	}
	s.mu.Lock()
	s.orphans = wait
	s.mu.Unlock()
	if wait {
		return nil
	}
	return s.lib.GarbageCollect()
}

func (s *Store) hasOrphans() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.orphans
}

// hasAnyOf reports whether an image has one of the layers, which the library
// would delete with it.
func (s *Store) hasAnyOf(imageID string, layers map[string]bool) bool {
	if len(layers) == 0 {
		return false
	}
	rec, err := s.lib.Image(imageID)
	if err != nil {
		return false
	}
	for layer := rec.TopLayer; layer != ""; {
		if layers[layer] {
			return true
		}
		l, err := s.lib.Layer(layer)
		if err != nil {
			return false // the library deletes no further
		}
		layer = l.Parent
	}
	return false
}

// layersOfLost are those of containers whose own image is not in the library's
// records any more.
func (s *Store) layersOfLost() map[string]bool {
	s.mu.Lock()
	uses := slices.Collect(maps.Values(s.uses))
	s.mu.Unlock()
	lost := map[string]bool{}
	for _, used := range uses {
		if slices.ContainsFunc(used.images, func(img string) bool { return !s.lib.Exists(img) }) {
			for _, l := range used.layers {
				lost[l] = true
			}
		}
	}
	return lost
}
