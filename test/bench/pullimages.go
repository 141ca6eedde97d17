package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	godigest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	imgspec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.podman.io/storage/pkg/chunked/compressor"
)

// Images that are made to be pulled: the same two large layers compressed in
// two ways, the first of them under a second name, and many small layers.
const (
	bigImage    = "docker.io/bench/big:gzip"
	againImage  = "docker.io/bench/big:again"
	zstdImage   = "docker.io/bench/big:zstd"
	layersImage = "docker.io/bench/layers:40"

	chunkedImage = "docker.io/bench/chunked:1" // a large layer that no other image has
	updateImage  = "docker.io/bench/chunked:2" // with some files changed
)

// What the large layers are made of: 2 × 1000 files, about 215 MB, of which
// gzip leaves about 97.
const (
	bigLayers   = 2
	bigFiles    = 1000
	bigFileSize = 107_500
	bigRandom   = 44_500 // bytes of a file that can't be compressed
	smallLayers = 40
	newFiles    = 30 // of the update
)

// compression makes a blob of a layer.
type compression struct {
	mediaType string
	writer    func(io.Writer) (io.WriteCloser, error)

	annotations map[string]string // of the last blob; nil: it needs none
}

func gzipped() compression {
	return compression{
		mediaType: imgspec.MediaTypeImageLayerGzip,
		writer:    func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil },
	}
}

func zstandard() compression {
	return compression{
		mediaType: imgspec.MediaTypeImageLayerZstd,
		writer:    func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) },
	}
}

// zstdChunked is zstd with a table of contents.
func zstdChunked() compression {
	c := compression{mediaType: imgspec.MediaTypeImageLayerZstd, annotations: map[string]string{}}
	c.writer = func(w io.Writer) (io.WriteCloser, error) {
		clear(c.annotations)
		return compressor.ZstdCompressor(w, c.annotations, nil)
	}
	return c
}

// pullLayout writes an OCI image layout of all of them into dir, and returns
// the layers of the large one.
func pullLayout(dir string) ([]godigest.Digest, error) {
	w := layout{dir: filepath.Join(dir, "blobs", "sha256")}
	var big, small [][]byte
	for i := range bigLayers {
		big = append(big, bigLayer(i))
	}
	for i := range smallLayers {
		small = append(small, tarOf(map[string][]byte{fmt.Sprintf("layer%d", i): []byte(strings.Repeat("x", i+1))}))
	}
	index := imgspec.Index{Versioned: specs.Versioned{SchemaVersion: 2}}
	name := func(d imgspec.Descriptor, name string) {
		d.Annotations = map[string]string{imgspec.AnnotationRefName: name}
		index.Manifests = append(index.Manifests, d)
	}
	gz, blobs := w.image(big, gzipped())
	name(gz, bigImage)
	name(gz, againImage)
	zs, _ := w.image(big, zstandard())
	name(zs, zstdImage)
	one, _ := w.image([][]byte{bigLayerWith(bigLayers, 0)}, zstdChunked())
	name(one, chunkedImage)
	two, _ := w.image([][]byte{bigLayerWith(bigLayers, newFiles)}, zstdChunked())
	name(two, updateImage)
	many, _ := w.image(small, gzipped())
	name(many, layersImage)
	body, err := json.Marshal(index)
	if err != nil {
		return nil, err
	}
	if w.err != nil {
		return nil, w.err
	}
	return blobs, os.WriteFile(filepath.Join(dir, imgspec.ImageIndexFile), body, 0o644)
}

// image writes an image and returns its manifest's descriptor and its layers.
func (w *layout) image(layers [][]byte, c compression) (imgspec.Descriptor, []godigest.Digest) {
	var blobs []godigest.Digest
	m := imgspec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: imgspec.MediaTypeImageManifest}
	config := imgspec.Image{Platform: imgspec.Platform{Architecture: runtime.GOARCH, OS: "linux"}, RootFS: imgspec.RootFS{Type: "layers"}}
	for _, raw := range layers {
		var packed bytes.Buffer
		if err := pack(&packed, raw, c); err != nil && w.err == nil {
			w.err = err
		}
		w.blob(c.mediaType, packed.Bytes())
		w.last.Annotations = maps.Clone(c.annotations)
		m.Layers = append(m.Layers, w.last)
		blobs = append(blobs, w.last.Digest)
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, godigest.FromBytes(raw))
	}
	w.json(imgspec.MediaTypeImageConfig, config)
	m.Config = w.last
	w.json(m.MediaType, m)
	return w.last, blobs
}

func pack(to io.Writer, raw []byte, c compression) error {
	w, err := c.writer(to)
	if err != nil {
		return err
	}
	if _, err := w.Write(raw); err != nil {
		return err
	}
	return w.Close()
}

// bigLayer is the same in each run.
func bigLayer(number int) []byte { return bigLayerWith(number, 0) }

// bigLayerWith is a large layer of which some files have another content.
func bigLayerWith(number, changed int) []byte {
	rng := rand.NewChaCha8([32]byte{byte(number)})
	files := make(map[string][]byte, bigFiles)
	for i := range bigFiles {
		body := bytes.Repeat([]byte("a line of text that can be compressed\n"), bigFileSize/38+1)[:bigFileSize]
		_, _ = rng.Read(body[:bigRandom])
		if i < changed {
			for j := range body[:bigRandom] {
				body[j] ^= 0x55
			}
		}
		files[fmt.Sprintf("usr/lib/layer%d/%02d/file%03d", number, i/20, i)] = body
	}
	return tarOf(files)
}

// tarOf is an archive of the files; directories are left to who unpacks it.
func tarOf(files map[string][]byte) []byte {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		header := &tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(files[name]))}
		if err := w.WriteHeader(header); err != nil {
			panic(err) // of a name that we made: it can't happen
		}
		_, _ = w.Write(files[name]) // into memory
	}
	_ = w.Close() // as above
	return buf.Bytes()
}
