package image

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	imgspec "github.com/opencontainers/image-spec/specs-go/v1"
)

// member is one of a layer's archive.
type member struct {
	name string
	body string
	link string // target
	kind byte   // 0: a file
	mode int64  // 0: 0644
	pax  map[string]string
	dev  [2]int64
}

func (m member) header() *tar.Header {
	h := &tar.Header{
		Name: m.name, Linkname: m.link, Typeflag: m.kind, Mode: m.mode, PAXRecords: m.pax,
		Devmajor: m.dev[0], Devminor: m.dev[1],
	}
	if m.kind == 0 {
		h.Typeflag, h.Size = tar.TypeReg, int64(len(m.body))
	}
	if h.Mode == 0 {
		h.Mode = 0o644
	}
	return h
}

func archiveOf(t testing.TB, members ...member) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, m := range members {
		h := m.header()
		must(t, w.WriteHeader(h))
		if h.Size > 0 {
			_, err := w.Write([]byte(m.body))
			must(t, err)
		}
	}
	must(t, w.Close())
	return buf.Bytes()
}

// imageOf is an image whose only layer is blob, which unpacks to diffID.
func imageOf(t testing.TB, blob []byte, diffID digest.Digest) testImage {
	t.Helper()
	img := testImage{mediaType: imgspec.MediaTypeImageManifest, blobs: map[digest.Digest][]byte{}}
	config := imgspec.Image{Platform: imgspec.Platform{OS: "linux", Architecture: "amd64"}}
	config.RootFS = imgspec.RootFS{Type: "layers", DiffIDs: []digest.Digest{diffID}}
	body, err := json.Marshal(config)
	must(t, err)
	m := imgspec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: img.mediaType}
	m.Layers = append(m.Layers, img.add(imgspec.MediaTypeImageLayerGzip, blob))
	m.Config = img.add(imgspec.MediaTypeImageConfig, body)
	img.config, img.layers = m.Config.Digest, []digest.Digest{m.Layers[0].Digest}
	img.manifest, err = json.Marshal(m)
	must(t, err)
	return img
}
