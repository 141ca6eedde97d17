package storage

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/gantry-cri/gantry/internal/id"
	"github.com/gantry-cri/gantry/internal/statefile"
)

const usageVersion = 1

// usageBook holds what is known of the space that layers occupy. Image layers
// never change: each is measured once and remembered across restarts.
// Writable layers are measured again and again while somebody asks (see
// writable.go), so that an idle node does nothing.
type usageBook struct {
	file   string
	period time.Duration
	stop   chan struct{} // closed by Close
	fresh  chan struct{} // a writable layer was asked for that was not measured yet

	measuring sync.Mutex // held by the one background measurement of image layers

	mu         sync.Mutex // guards the fields below
	layers     map[string]Usage
	images     Usage // sum of layers; At is zero
	containers map[id.Container]Usage
	total      Usage                          // sum of containers
	measured   map[id.Container]time.Duration // how long the last measurement took
	asked      time.Time                      // when a writable layer's figure was last asked for
	walking    bool                           // the writable layers are being measured again and again
}

func (b *usageBook) load(file string) {
	b.file = file
	b.layers, b.containers, b.measured = map[string]Usage{}, map[id.Container]Usage{}, map[id.Container]time.Duration{}
	// A lost or damaged file only means measuring again.
	if err := statefile.Read(file, usageVersion, &b.layers); err != nil || b.layers == nil {
		b.layers = map[string]Usage{}
	}
	b.total.At = time.Now()
	b.sumLocked()
}

func (b *usageBook) sumLocked() {
	b.images.Bytes, b.images.Inodes = sum(b.layers)
	b.total.Bytes, b.total.Inodes = sum(b.containers)
}

func sum[K comparable](m map[K]Usage) (bytes, inodes uint64) {
	for _, u := range m {
		bytes += u.Bytes
		inodes += u.Inodes
	}
	return bytes, inodes
}

// ImageUsage is what all image layers occupy, from memory. It is as of now,
// whenever they were measured: they don't change. The kubelet acts only on
// figures that are newer than those it has.
func (s *Store) ImageUsage() Usage {
	s.usage.mu.Lock()
	defer s.usage.mu.Unlock()
	u := s.usage.images
	u.At = time.Now()
	return u
}

// measureLayers measures the layers of x that are not known yet, in the
// background.
func (s *Store) measureLayers(x *Index) {
	missing := map[string]string{} // layer id -> directory
	s.usage.mu.Lock()
	for _, img := range x.images {
		for i, l := range img.Layers {
			if _, ok := s.usage.layers[l]; !ok {
				missing[l] = img.lower[i]
			}
		}
	}
	s.usage.mu.Unlock()
	if len(missing) == 0 {
		return
	}
	s.tasks.Go(func() {
		s.usage.measuring.Lock()
		defer s.usage.measuring.Unlock()
		for l, dir := range missing {
			if u, err := measure(dir); err == nil {
				s.usage.noteLayer(l, u)
			}
		}
		if err := s.usage.save(); err != nil {
			s.log.Warn("image usage not recorded", "err", err)
		}
	})
}

func (b *usageBook) noteLayer(layer string, u Usage) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.layers[layer] = u
	b.sumLocked()
}

// keepOnly forgets layers that are gone.
func (b *usageBook) keepOnly(layers map[string]bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	maps.DeleteFunc(b.layers, func(l string, _ Usage) bool { return !layers[l] })
	b.sumLocked()
}

// save writes the figures of image layers. Caller holds b.measuring.
func (b *usageBook) save() error {
	b.mu.Lock()
	layers := maps.Clone(b.layers)
	b.mu.Unlock()
	return statefile.Write(b.file, usageVersion, layers)
}

// measure walks dir: blocks in use and inodes, a hard-linked file once.
func measure(dir string) (Usage, error) {
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return Usage{}, err
	}
	u := Usage{At: time.Now()}
	linked := map[uint64]bool{}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && path != dir {
			return nil // a container's file that went during the walk
		}
		if err != nil {
			return err
		}
		info, err := os.Lstat(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if !ok || st.Nlink > 1 && !info.IsDir() && linked[st.Ino] {
			return nil
		}
		if st.Nlink > 1 && !info.IsDir() {
			linked[st.Ino] = true
		}
		u.Bytes += uint64(st.Blocks) * 512
		u.Inodes++
		return nil
	})
	return u, err
}
