package image

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"

	"github.com/opencontainers/go-digest"
	"go.podman.io/image/v5/types"
	"go.podman.io/storage/pkg/archive"
	"golang.org/x/sys/unix"

	"github.com/gantry-cri/gantry/internal/errkind"
	"github.com/gantry-cri/gantry/internal/storage"
)

// layerJob is one layer to fetch.
type layerJob struct {
	id, parent string // of the store
	diffID     digest.Digest
	blob       types.BlobInfo
	files      []artifactFile // what an artifact's layer is made of, instead of one blob
}

// layer downloads, verifies and unpacks one layer, in one pass and without a
// copy of the blob, or of one with a table of contents what is not stored. A registry that sent the wrong bytes is asked once more.
func (f *streamFetcher) layer(ctx context.Context, src *watchedSource, job layerJob) (storage.NewLayer, error) {
	start := time.Now()
	contents, ok := f.contents(ctx, src, job)
	if ok {
		if l, ok := f.partial(ctx, src, job, contents); ok {
			l.Pieces = contents.pieces()
			return l, nil
		}
	}
	l, err := f.layerOnce(ctx, src, job)
	if errors.Is(err, errWrongContent) && ctx.Err() == nil {
		f.log.Warn("layer damaged on its way, fetched again", "blob", job.blob.Digest, "err", err)
		l, err = f.layerOnce(ctx, src, job)
	}
	if err != nil {
		return storage.NewLayer{}, fmt.Errorf("layer %s: %w", job.blob.Digest, err)
	}
	l.Pieces = contents.pieces()
	f.log.Debug("layer fetched", "blob", job.blob.Digest, "bytes", l.BlobSize, "unpacked", l.Size, "took", time.Since(start))
	return l, nil
}

func (f *streamFetcher) layerOnce(ctx context.Context, src *watchedSource, job layerJob) (storage.NewLayer, error) {
	if len(job.files) > 0 {
		return f.artifactLayer(ctx, src, job)
	}
	ctx, cancel := context.WithCancel(ctx)
	body, err := newBlob(ctx, src, job.blob, src.retry)
	if err != nil {
		cancel()
		return storage.NewLayer{}, err
	}
	raw := newPump(body, &f.chunks)
	defer body.Close()
	defer raw.Close()
	defer cancel() // first: it ends what the pump waits for
	out := &counted{hash: digest.SHA256.Hash()}
	var staged *storage.Staged
	var kind archive.Compression
	content, err := src.decrypted(raw, job.blob)
	if err == nil {
		staged, kind, err = f.stage(ctx, content, out, src.layers)
	}
	if err == nil {
		err = out.check(job.diffID)
	}
	if err = blame(body, raw, err); err != nil {
		if staged != nil {
			staged.Discard()
		}
		return storage.NewLayer{}, err
	}
	return storage.NewLayer{
		ID: job.id, Parent: job.parent, DiffID: job.diffID, Size: out.n,
		Blob: job.blob.Digest, BlobSize: body.offset, Compression: kind, Staged: staged,
	}, nil
}

// stage decompresses raw and unpacks it.
func (f *streamFetcher) stage(ctx context.Context, raw io.Reader, out *counted, limits storage.Limits) (*storage.Staged, archive.Compression, error) {
	plain, kind, err := f.unpack.open(ctx, raw)
	if err != nil {
		return nil, kind, err
	}
	ahead := newPump(plain, &f.chunks)
	out.r = ahead
	staged, err := f.store.Stage(ctx, out, limits)
	// The decompressor may be reading; raw ends with the blob or its context,
	// and whoever called us has no use for the rest of an image that failed.
	ahead.Close()
	return staged, kind, errors.Join(err, plain.Close())
}

// blame reads the rest of a blob whose content made no sense, to tell an image
// that is broken from a registry or a network that broke it. What is no fault
// of the content stays as it is.
func blame(body *blob, raw io.Reader, err error) error {
	var local unix.Errno
	if body.ctx.Err() != nil || errkind.Of(err) == errkind.Exhausted || errors.As(err, &local) && errkind.Of(err) == errkind.Other {
		return err
	}
	if _, readErr := io.Copy(io.Discard, raw); readErr != nil {
		return readErr // the blob's own error says more
	}
	return errkind.Wrap(errkind.Invalid, err) // it is what the registry was asked for
}

// counted hashes what is read through it.
type counted struct {
	r    io.Reader
	hash hash.Hash
	n    int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	_, _ = c.hash.Write(p[:n]) // a hash takes everything
	c.n += int64(n)
	return n, err
}

// check compares with the digest that the image's configuration has.
func (c *counted) check(want digest.Digest) error {
	if have := digest.NewDigest(digest.SHA256, c.hash); have != want {
		return errkind.Errorf(errkind.Invalid, "it unpacks to %s, its image says %s", have, want)
	}
	return nil
}
