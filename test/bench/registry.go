package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	godigest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	imgspec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantry-cri/gantry/test/images"
	"github.com/gantry-cri/gantry/test/testenv"
)

// Names of the images. Containerd's pods need one of a pause program; it holds
// the very program that Gantry has built in.
const (
	busyboxImage = testenv.Busybox
	nginxImage   = testenv.Nginx
	pauseImage   = "registry.k8s.io/pause:bench"
)

// registryHosts are the hosts that the images are named after.
func registryHosts() []string { return []string{"docker.io", "registry.k8s.io"} }

// fillRegistry starts a registry that serves all images.
func fillRegistry(ctx context.Context, dir string) (*testenv.Registry, error) {
	layout, err := pauseLayout(ctx, filepath.Join(dir, "pause-image"))
	if err != nil {
		return nil, fmt.Errorf("make the pause image: %w", err)
	}
	r, err := testenv.StartRegistry()
	if err != nil {
		return nil, err
	}
	if err := r.Fill(ctx, images.Demo); err != nil {
		r.Stop()
		return nil, err
	}
	if err := images.Push(ctx, layout, r.Address); err != nil {
		r.Stop()
		return nil, err
	}
	return r, nil
}

// pauseLayout writes an OCI image layout that holds pauseImage, and returns dir.
func pauseLayout(ctx context.Context, dir string) (string, error) {
	program, err := compilePause(ctx, filepath.Join(dir, "pause"))
	if err != nil {
		return "", err
	}
	layer := filepath.Join(dir, "layer.tar")
	if err := writeLayer(layer, program); err != nil {
		return "", err
	}
	data, err := os.ReadFile(layer)
	if err != nil {
		return "", err
	}
	w := layout{dir: filepath.Join(dir, "blobs", "sha256")}
	w.blob(imgspec.MediaTypeImageLayer, data)
	layerBlob := w.last
	w.json(imgspec.MediaTypeImageConfig, imgspec.Image{
		Platform: imgspec.Platform{Architecture: runtime.GOARCH, OS: "linux"},
		Config:   imgspec.ImageConfig{Entrypoint: []string{"/pause"}},
		RootFS:   imgspec.RootFS{Type: "layers", DiffIDs: []godigest.Digest{layerBlob.Digest}},
	})
	w.json(imgspec.MediaTypeImageManifest, imgspec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: imgspec.MediaTypeImageManifest,
		Config:    w.last,
		Layers:    []imgspec.Descriptor{layerBlob},
	})
	named := w.last
	named.Annotations = map[string]string{imgspec.AnnotationRefName: pauseImage}
	index, err := json.Marshal(imgspec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, Manifests: []imgspec.Descriptor{named}})
	if err != nil {
		return "", err
	}
	if w.err != nil {
		return "", w.err
	}
	return dir, os.WriteFile(filepath.Join(dir, imgspec.ImageIndexFile), index, 0o644)
}

// compilePause builds Gantry's pause program.
func compilePause(ctx context.Context, file string) ([]byte, error) {
	root, err := testenv.Root()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return nil, err
	}
	out, err := exec.CommandContext(ctx, "make", "-C", filepath.Join(root, "pause"), "OUT="+file).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("make -C pause: %w: %s", err, out)
	}
	return os.ReadFile(file)
}

func writeLayer(file string, program []byte) error {
	tree := images.NewTree()
	for _, dir := range []string{"dev", "proc", "sys", "etc"} {
		tree.Dir(dir, 0o755)
	}
	tree.File("pause", 0o755, program)
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	if _, err := tree.WriteTo(f); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// layout writes blobs; the first error stays in err.
type layout struct {
	dir  string
	last imgspec.Descriptor // of the blob that was written last
	err  error
}

func (w *layout) json(mediaType string, v any) {
	data, err := json.Marshal(v)
	if err != nil && w.err == nil {
		w.err = err
	}
	w.blob(mediaType, data)
}

func (w *layout) blob(mediaType string, data []byte) {
	digest := godigest.FromBytes(data)
	w.last = imgspec.Descriptor{MediaType: mediaType, Digest: digest, Size: int64(len(data))}
	if w.err == nil {
		w.err = os.MkdirAll(w.dir, 0o755)
	}
	if w.err == nil {
		w.err = os.WriteFile(filepath.Join(w.dir, digest.Encoded()), data, 0o644)
	}
}
