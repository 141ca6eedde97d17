package image

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"testing"

	"github.com/klauspost/compress/zstd"
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
	size int64 // what the header says; 0: what body has
	uid  int
	gnu  bool // a name that is not UTF-8
}

func (m member) header() *tar.Header {
	h := &tar.Header{
		Name: m.name, Linkname: m.link, Typeflag: m.kind, Mode: m.mode, PAXRecords: m.pax,
		Devmajor: m.dev[0], Devminor: m.dev[1], Uid: m.uid,
	}
	if m.gnu {
		h.Format = tar.FormatGNU
	}
	if m.kind == 0 {
		h.Typeflag, h.Size = tar.TypeReg, max(int64(len(m.body)), m.size)
	}
	if h.Mode == 0 {
		h.Mode = 0o644
	}
	return h
}

// archiveOf makes an archive, which ends early after a member that is shorter
// than its header says.
func archiveOf(t testing.TB, members ...member) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, m := range members {
		must(t, w.WriteHeader(m.header()))
		if m.body != "" {
			_, err := w.Write([]byte(m.body))
			must(t, err)
		}
		if m.size > int64(len(m.body)) {
			return buf.Bytes()
		}
	}
	must(t, w.Close())
	return buf.Bytes()
}

// rawHeader is a header of an archive as no decent program writes it.
func rawHeader(kind byte, name string, size int64, change func(block []byte)) []byte {
	block := make([]byte, 512)
	copy(block, name)
	copy(block[100:], "0000644\x00")
	copy(block[108:], "0000000\x000000000\x00")
	binary256(block[124:136], size)
	copy(block[136:], "00000000000\x00")
	block[156] = kind
	copy(block[257:], "ustar  \x00")
	if change != nil {
		change(block)
	}
	copy(block[148:156], "        ")
	sum := 0
	for _, b := range block {
		sum += int(b)
	}
	copy(block[148:], fmt.Sprintf("%06o\x00 ", sum))
	return block
}

// binary256 is how GNU tar writes numbers that are too large for octal digits.
func binary256(field []byte, n int64) {
	for i := len(field) - 1; i > 0; i-- {
		field[i] = byte(n)
		n >>= 8
	}
	field[0] = 0x80
}

// imageOf is an image whose only layer is blob, which unpacks to diffID.
func imageOf(t testing.TB, blob []byte, diffID digest.Digest) testImage {
	t.Helper()
	return imageOfLayers(t, [][]byte{blob}, []digest.Digest{diffID})
}

func imageOfLayers(t testing.TB, blobs [][]byte, diffIDs []digest.Digest) testImage {
	t.Helper()
	img := testImage{mediaType: imgspec.MediaTypeImageManifest, blobs: map[digest.Digest][]byte{}}
	config := imgspec.Image{Platform: imgspec.Platform{OS: "linux", Architecture: "amd64"}}
	config.RootFS = imgspec.RootFS{Type: "layers", DiffIDs: diffIDs}
	body, err := json.Marshal(config)
	must(t, err)
	m := imgspec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: img.mediaType}
	for _, blob := range blobs {
		m.Layers = append(m.Layers, img.add(imgspec.MediaTypeImageLayerGzip, blob))
		img.layers = append(img.layers, digest.FromBytes(blob))
	}
	m.Config = img.add(imgspec.MediaTypeImageConfig, body)
	img.config = m.Config.Digest
	img.manifest, err = json.Marshal(m)
	must(t, err)
	return img
}

// zstdOf compresses what is written to it by fill.
func zstdOf(t testing.TB, fill func(w io.Writer)) []byte {
	t.Helper()
	var buf bytes.Buffer
	w, err := zstd.NewWriter(&buf)
	must(t, err)
	fill(w)
	must(t, w.Close())
	return buf.Bytes()
}
