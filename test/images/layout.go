package images

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"

	"github.com/opencontainers/image-spec/specs-go"
	imgspec "github.com/opencontainers/image-spec/specs-go/v1"

	godigest "github.com/opencontainers/go-digest"
)

// layoutWriter writes an OCI image layout:
// https://github.com/opencontainers/image-spec/blob/main/image-layout.md
type layoutWriter struct {
	dir    string
	index  imgspec.Index
	layers map[*Tree]writtenLayer
}

type writtenLayer struct {
	descriptor imgspec.Descriptor
	diffID     godigest.Digest
}

func newLayoutWriter(dir string) (*layoutWriter, error) {
	if err := os.MkdirAll(filepath.Join(dir, "blobs", "sha256"), 0o755); err != nil {
		return nil, err
	}
	return &layoutWriter{
		dir:    dir,
		index:  imgspec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: imgspec.MediaTypeImageIndex},
		layers: map[*Tree]writtenLayer{},
	}, nil
}

// add writes the image's blobs and names it in the index.
func (w *layoutWriter) add(im image) error {
	manifest := imgspec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: imgspec.MediaTypeImageManifest,
	}
	config := imgspec.Image{
		Platform: imgspec.Platform{Architecture: runtime.GOARCH, OS: "linux"},
		Config:   im.config,
		RootFS:   imgspec.RootFS{Type: "layers"},
	}
	for _, tree := range im.layers {
		layer, err := w.layer(tree)
		if err != nil {
			return err
		}
		manifest.Layers = append(manifest.Layers, layer.descriptor)
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, layer.diffID)
	}
	var err error
	if manifest.Config, err = w.json(imgspec.MediaTypeImageConfig, config); err != nil {
		return err
	}
	desc, err := w.json(imgspec.MediaTypeImageManifest, manifest)
	if err != nil {
		return err
	}
	for _, name := range im.names {
		named := desc
		named.Annotations = map[string]string{imgspec.AnnotationRefName: name}
		w.index.Manifests = append(w.index.Manifests, named)
	}
	return nil
}

func (w *layoutWriter) layer(tree *Tree) (writtenLayer, error) {
	if done, ok := w.layers[tree]; ok {
		return done, nil
	}
	var packed bytes.Buffer
	gz, err := gzip.NewWriterLevel(&packed, gzip.BestSpeed)
	if err != nil {
		return writtenLayer{}, err
	}
	plain := sha256.New()
	if _, err := tree.WriteTo(io.MultiWriter(gz, plain)); err != nil {
		return writtenLayer{}, err
	}
	if err := gz.Close(); err != nil {
		return writtenLayer{}, err
	}
	desc, err := w.blob(imgspec.MediaTypeImageLayerGzip, packed.Bytes())
	if err != nil {
		return writtenLayer{}, err
	}
	done := writtenLayer{descriptor: desc, diffID: godigest.NewDigest(godigest.SHA256, plain)}
	w.layers[tree] = done
	return done, nil
}

func (w *layoutWriter) json(mediaType string, v any) (imgspec.Descriptor, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return imgspec.Descriptor{}, err
	}
	return w.blob(mediaType, data)
}

func (w *layoutWriter) blob(mediaType string, data []byte) (imgspec.Descriptor, error) {
	digest := godigest.FromBytes(data)
	if err := os.WriteFile(blobPath(w.dir, digest), data, 0o644); err != nil {
		return imgspec.Descriptor{}, err
	}
	return imgspec.Descriptor{MediaType: mediaType, Digest: digest, Size: int64(len(data))}, nil
}

// close writes the files that make the directory a layout.
func (w *layoutWriter) close() error {
	index, err := json.Marshal(w.index)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(w.dir, imgspec.ImageLayoutFile), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(w.dir, imgspec.ImageIndexFile), index, 0o644)
}

func readIndex(dir string) (imgspec.Index, error) {
	var index imgspec.Index
	data, err := os.ReadFile(filepath.Join(dir, imgspec.ImageIndexFile))
	if err != nil {
		return index, err
	}
	if err := json.Unmarshal(data, &index); err != nil {
		return index, fmt.Errorf("read image layout %s: %w", dir, err)
	}
	return index, nil
}

func blobPath(dir string, digest godigest.Digest) string {
	return filepath.Join(dir, "blobs", digest.Algorithm().String(), digest.Encoded())
}
