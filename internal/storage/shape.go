package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"path"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// shapeDirs is how many directories of a layer its shape knows, those nearest
// to the top. A layer is looked at in less than a millisecond then, whatever
// its size, and what people and programs remove or rename is mostly there.
const shapeDirs = 128

// shapes are those of the layers that this process has unpacked or surveyed:
// a layer whose shape is still the same need not be surveyed again.
type shapes struct {
	mu sync.Mutex // guards of
	of map[string]uint64
}

func (b *shapes) init() { b.of = map[string]uint64{} }

func (b *shapes) get(layer string) (uint64, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	shape, ok := b.of[layer]
	return shape, ok
}

func (b *shapes) note(layer string, shape uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.of[layer] = shape
}

func (b *shapes) forget(layer string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.of, layer)
}

// keepOnly forgets layers that are gone.
func (b *shapes) keepOnly(layers map[string]bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for l := range b.of {
		if !layers[l] {
			delete(b.of, l)
		}
	}
}

// shapeOf mixes inode number, mode, owner and change time of the directories
// nearest to the top of dir. A directory's change time is the kernel's own
// and tells of everything that was made, removed or renamed in it.
func shapeOf(dir string) (uint64, error) {
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("open layer %s: %w", dir, err)
	}
	defer unix.Close(root)
	h := fnv.New64a()
	queue := []string{"."}
	for n := 0; n < len(queue) && n < shapeDirs; n++ {
		below, err := addDir(h, root, queue[n])
		if err != nil {
			return 0, fmt.Errorf("%s: %w", queue[n], err)
		}
		if missing := shapeDirs - len(queue); len(below) > missing {
			below = below[:max(missing, 0)]
		}
		queue = append(queue, below...)
	}
	return h.Sum64(), nil
}

// addDir mixes one directory in and returns those that it has.
func addDir(h io.Writer, root int, name string) ([]string, error) {
	fd, err := unix.Openat(root, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	_, _ = io.WriteString(h, name) // a hash takes everything
	var field [8]byte
	for _, v := range []uint64{st.Ino, uint64(st.Mode), uint64(st.Uid), uint64(st.Gid), uint64(st.Ctim.Nano())} {
		binary.LittleEndian.PutUint64(field[:], v)
		_, _ = h.Write(field[:])
	}
	if st.Nlink == 2 { // no ".." of another leads here; file systems that don't count have 1
		return nil, nil
	}
	return subdirectories(f, name)
}

// subdirectories are sorted: in which order they are read may change.
func subdirectories(f *os.File, name string) ([]string, error) {
	var dirs []string
	for {
		entries, err := f.ReadDir(1024)
		for _, e := range entries {
			if e.IsDir() {
				dirs = append(dirs, path.Join(name, e.Name()))
			}
		}
		if errors.Is(err, io.EOF) {
			slices.Sort(dirs)
			return dirs, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// IntactLayer is HealthyLayer for a pull, which happens often: it looks no
// further than the layer's shape, if this process has unpacked or surveyed the
// layer before. So it finds layers that are gone, and what was made, removed,
// renamed or replaced near their top; and, the first time after a start or
// after HealthyLayer found damage, all that HealthyLayer finds.
func (s *Store) IntactLayer(layerID string) bool {
	want, known := s.shapes.get(layerID)
	if !known {
		return s.HealthyLayer(layerID)
	}
	if !s.lib.Exists(layerID) {
		return false
	}
	dir, err := s.layerDir(layerID)
	if err != nil {
		return false
	}
	if have, err := shapeOf(dir); err == nil && have == want {
		return true
	}
	return s.HealthyLayer(layerID)
}

// noteShape remembers what a layer that was just unpacked looks like.
func (s *Store) noteShape(layerID string) {
	dir, err := s.layerDir(layerID)
	if err != nil {
		return // the next pull looks closer
	}
	if shape, err := shapeOf(dir); err == nil {
		s.shapes.note(layerID, shape)
	}
}
