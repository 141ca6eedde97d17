package image

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"go.podman.io/storage/pkg/archive"

	"github.com/gantry-cri/gantry/internal/storage"
)

// A partial pull puts a layer's archive together from chunks that are stored,
// as parts of other layers, and from what is fetched of its blob. The archive
// then goes the way of every other: it is unpacked while it is hashed, and the
// layer is what the image's configuration says or it is nothing. So neither
// the table of contents nor the stored chunks need to be trusted; where they
// were wrong, the whole blob is fetched.

const (
	minSaved    = 64 << 10 // bytes; for less a partial pull is not worth its requests
	minHole     = 1 << 10  // a range costs about that much
	maxRanges   = 1024     // of one layer
	rangesAtime = 128      // of one request, whose header servers limit
)

// segment is a part of the archive: a range of the blob to be fetched, or a
// chunk.
type segment struct {
	fetch byteRange // length 0: chunk it is
	chunk chunk
	from  storage.StoredPiece // unless the chunk is zeros
}

// partialPlan is an archive from its beginning to its end.
type partialPlan struct {
	segments []segment
	fetched  int64 // bytes of the blob
	reused   int64 // bytes of the blob that are not
}

// planPartial decides what is fetched.
func planPartial(t toc, stored map[[sha256.Size]byte]storage.StoredPiece) partialPlan {
	for hole := int64(minHole); ; hole *= 2 {
		p, ranges := planWith(t, stored, hole)
		if ranges <= maxRanges {
			return p
		}
	}
}

func planWith(t toc, stored map[[sha256.Size]byte]storage.StoredPiece, hole int64) (p partialPlan, ranges int) {
	at := int64(0)
	fetchTo := func(end int64) {
		if end > at {
			p.segments = append(p.segments, segment{fetch: byteRange{at, end - at}})
			p.fetched += end - at
			ranges++
		}
	}
	for _, c := range t.chunks {
		from, ok := stored[c.Digest]
		if c.end-c.start < hole || !ok && !c.zeros {
			continue
		}
		fetchTo(c.start)
		p.segments = append(p.segments, segment{chunk: c, from: from})
		p.reused += c.end - c.start
		at = c.end
	}
	fetchTo(t.end)
	return p, ranges
}

// contents reads a layer's table of contents; none for a layer that has none,
// or no good one.
func (f *streamFetcher) contents(ctx context.Context, src *watchedSource, job layerJob) (toc, bool) {
	place, ok := tocOf(job.blob.Annotations)
	if !ok || encrypted(job.blob.MediaType) {
		return toc{}, false
	}
	t, err := readTOC(ctx, src, job, place)
	if err != nil {
		f.log.Debug("no partial pull of a layer", "blob", job.blob.Digest, "err", err)
	}
	return t, err == nil
}

// partial fetches what is missing of a layer; false where that is all of it,
// or where it did not work.
func (f *streamFetcher) partial(ctx context.Context, src *watchedSource, job layerJob, t toc) (storage.NewLayer, bool) {
	want := make(map[[sha256.Size]byte]int64, len(t.chunks))
	for _, c := range t.chunks {
		want[c.Digest] = c.Size
	}
	plan := planPartial(t, f.store.FindPieces(want))
	if plan.reused < minSaved {
		return storage.NewLayer{}, false
	}
	l, err := f.assemble(ctx, src, job, plan)
	if err != nil {
		f.log.Warn("a layer could not be put together from what is stored, all of it is fetched", "blob", job.blob.Digest, "err", err)
		return storage.NewLayer{}, false
	}
	src.w.progress.reused(plan.reused)
	f.log.Info("layer fetched in part", "blob", job.blob.Digest, "fetched", plan.fetched, "reused", plan.reused)
	return l, true
}

func (f *streamFetcher) assemble(ctx context.Context, src *watchedSource, job layerJob, plan partialPlan) (_ storage.NewLayer, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	plain := &partialReader{ctx: ctx, src: src, job: job, plan: plan}
	ahead := newPump(plain, &f.chunks)
	out := &counted{r: ahead, hash: digest.SHA256.Hash()}
	staged, err := f.store.Stage(ctx, out, src.layers)
	cancel() // it ends what the pump waits for
	ahead.Close()
	plain.close()
	if err == nil {
		if err = out.check(job.diffID); err != nil {
			staged.Discard()
		}
	}
	// The blob's own digest is not noted: nobody has seen all of it.
	return storage.NewLayer{
		ID: job.id, Parent: job.parent, DiffID: job.diffID, Size: out.n,
		BlobSize: job.blob.Size, Compression: archive.Zstd, Staged: staged,
	}, err
}

// partialReader reads an archive by its segments.
type partialReader struct {
	ctx  context.Context
	src  *watchedSource
	job  layerJob
	plan partialPlan

	at      int // the next segment
	now     io.ReadCloser
	parts   *parts
	left    int // ranges of parts that are still to come
	decoder *zstd.Decoder
}

// Read implements io.Reader.
func (r *partialReader) Read(b []byte) (int, error) {
	for {
		if r.now == nil {
			if r.at == len(r.plan.segments) {
				return 0, io.EOF
			}
			var err error
			if r.now, err = r.open(r.plan.segments[r.at]); err != nil {
				return 0, err
			}
			r.at++
		}
		n, err := r.now.Read(b)
		if !errors.Is(err, io.EOF) {
			return n, err
		}
		err = r.now.Close()
		r.now = nil
		if n > 0 || err != nil {
			return n, err
		}
	}
}

func (r *partialReader) open(s segment) (io.ReadCloser, error) {
	if s.fetch.length > 0 {
		return r.fetch(s.fetch)
	}
	var body io.ReadCloser = io.NopCloser(io.LimitReader(nulls{}, s.chunk.Size))
	if !s.chunk.zeros {
		var err error
		if body, err = s.from.Open(); err != nil {
			return nil, err
		}
	}
	return &exactly{body, s.chunk.Size}, nil
}

// fetch reads and decompresses a range.
func (r *partialReader) fetch(want byteRange) (io.ReadCloser, error) {
	if r.left == 0 {
		if err := r.ask(); err != nil {
			return nil, err
		}
	}
	body, err := r.next()
	if err != nil {
		return nil, err
	}
	r.left--
	packed := &exactly{body, want.length}
	if r.decoder == nil {
		r.decoder, err = zstd.NewReader(packed, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(zstdWindow))
	} else {
		err = r.decoder.Reset(packed)
	}
	if err != nil {
		return nil, errors.Join(err, body.Close())
	}
	return closer{r.decoder, func() { _ = body.Close() }}, nil // it was only read
}

// next waits for a range.
func (r *partialReader) next() (io.ReadCloser, error) {
	defer r.src.w.begin()()
	body, err := r.parts.next()
	if err != nil {
		return nil, err
	}
	return &watchedBody{body, r.src.w}, nil
}

// ask makes a request for the ranges that come next.
func (r *partialReader) ask() (err error) {
	if r.parts != nil {
		r.parts.close()
		r.parts = nil
	}
	var ranges []byteRange
	for _, s := range r.plan.segments[r.at:] {
		if s.fetch.length > 0 && len(ranges) < rangesAtime {
			ranges = append(ranges, s.fetch)
		}
	}
	r.left = len(ranges)
	ctx, done := r.src.w.request(r.ctx)
	defer done()
	r.parts, err = openParts(ctx, r.src.ImageSource, r.job.blob, ranges)
	return err
}

// close gives up what is open.
func (r *partialReader) close() {
	if r.now != nil {
		_ = r.now.Close() // it was only read
	}
	if r.parts != nil {
		r.parts.close()
	}
	if r.decoder != nil {
		r.decoder.Close()
	}
}

// exactly makes a body that is shorter an error, and does not read beyond.
type exactly struct {
	io.ReadCloser
	left int64
}

func (e *exactly) Read(b []byte) (int, error) {
	if e.left == 0 {
		return 0, io.EOF
	}
	if int64(len(b)) > e.left {
		b = b[:e.left]
	}
	n, err := e.ReadCloser.Read(b)
	e.left -= int64(n)
	if errors.Is(err, io.EOF) && e.left > 0 {
		err = fmt.Errorf("%d bytes are missing: %w", e.left, io.ErrUnexpectedEOF)
	}
	return n, err
}

// nulls reads as null bytes without end.
type nulls struct{}

func (nulls) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}
