package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"

	"github.com/gantry-cri/gantry/internal/storage"
)

// A layer that is compressed as zstd:chunked is one like any other, with a
// table of contents after its end. Each file, or each of several chunks of a
// large one, is in a zstd frame of its own, and so is what is between them.
// https://github.com/containers/storage/blob/main/docs/containers-storage-zstd-chunked.md
const (
	tocDigestKey   = "io.github.containers.zstd-chunked.manifest-checksum"
	tocPositionKey = "io.github.containers.zstd-chunked.manifest-position"
)

// How large a table of contents may be: larger ones are left alone.
const (
	maxTOC       = 4 << 20
	maxTOCPlain  = 32 << 20
	maxTOCChunks = 200_000
)

// errNoTOC says that a layer can only be fetched as a whole.
var errNoTOC = errors.New("no table of contents of use")

// chunk is a file, or a part of one, in the blob.
type chunk struct {
	storage.Piece
	start, end int64 // of its frames
	zeros      bool
}

// toc is the table of contents of a blob.
type toc struct {
	chunks []chunk // in the blob's order
	end    int64   // of the archive's frames
}

// tocPlace is where the annotations of a layer say that its table is.
type tocPlace struct {
	byteRange
	plain  int64
	digest digest.Digest
}

// tocOf reads the annotations; false for a layer without a table.
func tocOf(annotations map[string]string) (tocPlace, bool) {
	place := tocPlace{digest: digest.Digest(annotations[tocDigestKey])}
	fields := strings.Split(annotations[tocPositionKey], ":")
	if len(fields) != 4 || fields[3] != "1" || place.digest.Validate() != nil || place.digest.Algorithm() != digest.SHA256 {
		return tocPlace{}, false
	}
	for i, to := range []*int64{&place.offset, &place.length, &place.plain} {
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil || n <= 0 {
			return tocPlace{}, false
		}
		*to = n
	}
	return place, place.length <= maxTOC && place.plain <= maxTOCPlain
}

// readTOC fetches a table and checks that it is the one that the manifest
// names.
func readTOC(ctx context.Context, src *watchedSource, job layerJob, place tocPlace) (toc, error) {
	if place.offset+place.length > job.blob.Size {
		return toc{}, fmt.Errorf("%w: it is beyond the blob", errNoTOC)
	}
	body, err := src.openRange(ctx, job.blob, place.byteRange)
	if err != nil {
		return toc{}, err
	}
	packed, err := io.ReadAll(io.LimitReader(body, place.length+1))
	if err = errors.Join(err, body.Close()); err != nil {
		return toc{}, err
	}
	if digest.FromBytes(packed) != place.digest {
		return toc{}, fmt.Errorf("%w: its digest is another", errNoTOC)
	}
	r, err := zstd.NewReader(bytes.NewReader(packed), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(zstdWindow))
	if err != nil {
		return toc{}, err
	}
	defer r.Close()
	const frameHeader = 8 // of the skippable frame that holds the table
	return parseTOC(io.LimitReader(r, place.plain), place.offset-frameHeader)
}

// tocEntry is what we read of a table's entry. What else it says of a file is
// in the archive, too, and that counts.
type tocEntry struct {
	Type        string `json:"type"`
	Name        string `json:"name"`
	Size        int64  `json:"size"`
	Digest      string `json:"digest"`
	Offset      int64  `json:"offset"`
	EndOffset   int64  `json:"endOffset"`
	ChunkSize   int64  `json:"chunkSize"`
	ChunkOffset int64  `json:"chunkOffset"`
	ChunkDigest string `json:"chunkDigest"`
	ChunkType   string `json:"chunkType"`
}

// parseTOC reads a table entry by entry.
func parseTOC(r io.Reader, end int64) (toc, error) {
	d := json.NewDecoder(r)
	for {
		token, err := d.Token()
		if err != nil {
			return toc{}, fmt.Errorf("%w: %w", errNoTOC, err)
		}
		if token == "entries" {
			break
		}
	}
	if token, err := d.Token(); err != nil || token != json.Delim('[') {
		return toc{}, fmt.Errorf("%w: no entries", errNoTOC)
	}
	p := tocParser{toc: toc{end: end}}
	for d.More() {
		var e tocEntry
		if err := d.Decode(&e); err != nil {
			return toc{}, fmt.Errorf("%w: %w", errNoTOC, err)
		}
		if err := p.add(e); err != nil {
			return toc{}, err
		}
	}
	return p.toc, p.check()
}

// tocParser knows of the file whose chunks are being read.
type tocParser struct {
	toc
	fileEnd int64 // of its frames
	size    int64 // of its content
	open    bool
}

func (p *tocParser) add(e tocEntry) error {
	isChunk := e.Type == "chunk"
	if isChunk && !p.open {
		return fmt.Errorf("%w: a chunk of no file", errNoTOC)
	}
	if !isChunk {
		p.open = e.Type == "reg" && e.Size > 0
		p.fileEnd, p.size = e.EndOffset, e.Size
	}
	if !p.open {
		return nil
	}
	if len(p.chunks) == maxTOCChunks {
		return fmt.Errorf("%w: more than %d chunks", errNoTOC, maxTOCChunks)
	}
	sum := e.ChunkDigest
	if sum == "" {
		sum = e.Digest
	}
	c := chunk{Piece: storage.Piece{Path: e.Name, Offset: e.ChunkOffset, Size: e.ChunkSize}, start: e.Offset, end: p.fileEnd, zeros: e.ChunkType == "zeros"}
	if c.Size == 0 {
		c.Size = p.size - e.ChunkOffset
	}
	raw, err := hex.DecodeString(strings.TrimPrefix(sum, "sha256:"))
	if err != nil || len(raw) != sha256.Size {
		return fmt.Errorf("%w: %.200q has the digest %.100q", errNoTOC, e.Name, sum)
	}
	c.Digest = [sha256.Size]byte(raw)
	if isChunk { // and the one before it ends
		p.chunks[len(p.chunks)-1].end = c.start
	}
	p.chunks = append(p.chunks, c)
	return nil
}

// check refuses tables that do not describe a blob from its beginning to end.
func (t toc) check() error {
	at := int64(0)
	for _, c := range t.chunks {
		if c.start < at || c.end < c.start || c.end > t.end || c.Offset < 0 || c.Size < 0 {
			return fmt.Errorf("%w: %.200q is out of place", errNoTOC, c.Path)
		}
		at = c.end
	}
	return nil
}

func (t toc) pieces() []storage.Piece {
	list := make([]storage.Piece, 0, len(t.chunks))
	for _, c := range t.chunks {
		if !c.zeros {
			list = append(list, c.Piece)
		}
	}
	return list
}
