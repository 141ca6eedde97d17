package storage

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	imgspec "github.com/opencontainers/image-spec/specs-go/v1"
	cstorage "go.podman.io/storage"
	drivers "go.podman.io/storage/drivers"
)

// Refresh brings the index up to date with the library's records.
func (s *Store) Refresh() error {
	s.records.Lock()
	defer s.records.Unlock()
	return s.refreshLocked()
}

// refreshLocked scans the records and publishes a new index. Caller holds
// s.records.
func (s *Store) refreshLocked() error {
	sc, err := s.newScan()
	if err != nil {
		return err
	}
	var images []Image
	var problems []error
	for _, rec := range sc.records {
		if sc.removed[rec.ID] {
			continue
		}
		img, err := sc.image(rec)
		if err != nil {
			problems = append(problems, fmt.Errorf("image %s: %w", rec.ID, err))
			s.log.Warn("image left out", "image", rec.ID, "err", err)
			continue
		}
		images = append(images, img)
	}
	x := newIndex(images)
	x.problems = problems
	s.mu.Lock()
	for _, n := range s.namings {
		x = x.named(n)
	}
	s.index.Store(x)
	s.mu.Unlock()
	s.measureLayers(x)
	return nil
}

// scan is one reading of the library's records.
type scan struct {
	lib     cstorage.Store
	driver  drivers.Driver
	old     *Index
	empty   string
	removed map[string]bool
	records []cstorage.Image
	layers  map[string]cstorage.Layer
}

func (s *Store) newScan() (*scan, error) {
	sc := &scan{lib: s.lib, old: s.index.Load(), empty: s.emptyDir(), layers: map[string]cstorage.Layer{}}
	layers, err := s.lib.Layers()
	if err != nil {
		return nil, fmt.Errorf("list layers: %w", err)
	}
	for _, l := range layers {
		sc.layers[l.ID] = l
	}
	if sc.records, err = s.lib.Images(); err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	if sc.driver, err = s.lib.GraphDriver(); err != nil {
		return nil, fmt.Errorf("open layers: %w", err)
	}
	sc.removed = s.removedImages()
	return sc, nil
}

// image reads one record. What never changes is taken from the old index.
func (sc *scan) image(rec cstorage.Image) (Image, error) {
	img := Image{
		ID:       rec.ID,
		Names:    slices.Sorted(slices.Values(rec.Names)),
		Digests:  rec.Digests,
		TopLayer: rec.TopLayer,
		Created:  rec.Created,
	}
	if old, ok := sc.old.ByID(rec.ID); ok && old.TopLayer == rec.TopLayer {
		img.Layers, img.Size, img.Config, img.ConfigDigest, img.lower, img.Created =
			old.Layers, old.Size, old.Config, old.ConfigDigest, old.lower, old.Created
		return img, nil
	}
	if err := sc.config(&img); err != nil {
		return Image{}, err
	}
	if err := sc.layerChain(&img); err != nil {
		return Image{}, err
	}
	for _, size := range rec.BigDataSizes {
		img.Size += uint64(size)
	}
	return img, nil
}

func (sc *scan) config(img *Image) error {
	img.ConfigDigest = digest.NewDigestFromEncoded(digest.SHA256, img.ID)
	if err := img.ConfigDigest.Validate(); err != nil {
		return fmt.Errorf("id: %w", err)
	}
	body, err := sc.lib.ImageBigData(img.ID, img.ConfigDigest.String())
	if err != nil {
		return fmt.Errorf("read config: %w", err)
	}
	if digest.FromBytes(body) != img.ConfigDigest {
		return errors.New("config does not match its digest")
	}
	img.Config = &imgspec.Image{}
	if err := json.Unmarshal(body, img.Config); err != nil {
		return fmt.Errorf("parse config: %w", err)
	}
	return nil
}

// layerChain follows the layers down and checks that each has its directory.
func (sc *scan) layerChain(img *Image) error {
	for layer := img.TopLayer; layer != ""; {
		l, ok := sc.layers[layer]
		if !ok || slices.Contains(img.Layers, layer) {
			return fmt.Errorf("layer %s is missing", layer)
		}
		img.Layers = append(img.Layers, layer)
		img.Size += uint64(max(l.UncompressedSize, 0))
		layer = l.Parent
	}
	if img.TopLayer == "" {
		img.lower = []string{sc.empty}
		return nil
	}
	meta, err := sc.driver.Metadata(img.TopLayer)
	if err != nil {
		return fmt.Errorf("layer %s: %w", img.TopLayer, err)
	}
	img.lower = []string{meta["UpperDir"]}
	if below := meta["LowerDir"]; below != "" {
		img.lower = append(img.lower, strings.Split(below, ":")...)
	}
	if len(img.lower) != len(img.Layers) {
		return fmt.Errorf("%d layers have %d directories", len(img.Layers), len(img.lower))
	}
	for i, dir := range img.lower {
		if _, err := os.Stat(dir); err != nil {
			return fmt.Errorf("layer: %w", err)
		}
		img.lower[i] = shortPath(dir)
	}
	return nil
}

// shortPath is the driver's other name for a layer's directory, a symbolic
// link of about half the length: mount options of kernels before 6.7 fit one
// page, which is 70 layers instead of 40. dir itself where there is none.
func shortPath(dir string) string {
	layer := filepath.Dir(dir)
	link, err := os.ReadFile(filepath.Join(layer, "link"))
	if err != nil {
		return dir
	}
	short := filepath.Join(filepath.Dir(layer), "l", string(link))
	a, errA := os.Stat(short)
	b, errB := os.Stat(dir)
	if errors.Join(errA, errB) != nil || !os.SameFile(a, b) {
		return dir
	}
	return short
}
