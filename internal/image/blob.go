package image

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	"go.podman.io/image/v5/types"

	"github.com/gantry-cri/gantry/internal/errkind"
)

// errWrongContent is wrapped where a registry sent something else than what
// the manifest names.
var errWrongContent = errors.New("the registry sent something else")

// blob reads one blob, verified. A connection that breaks is replaced: the
// rest is asked for by a range, by the library once in a while and else by us;
// of a registry that has no ranges the blob is asked for again, and what is
// known of it skipped.
type blob struct {
	ctx   context.Context
	src   *watchedSource
	info  types.BlobInfo
	retry retrier

	body     io.ReadCloser // nil: to be opened
	offset   int64         // bytes handed out
	failures int           // since the last progress
	verifier digest.Verifier
	verified bool // the end was reached, and it is the right one
}

func newBlob(ctx context.Context, src *watchedSource, info types.BlobInfo, retry retrier) (*blob, error) {
	if err := info.Digest.Validate(); err != nil {
		return nil, errkind.Errorf(errkind.Invalid, "blob %q: %w", info.Digest, err)
	}
	return &blob{ctx: ctx, src: src, info: info, retry: retry, verifier: info.Digest.Verifier()}, nil
}

// Read implements io.Reader. At the end it returns io.EOF only if everything
// was as the manifest says.
func (b *blob) Read(p []byte) (int, error) {
	for {
		n, err := b.readOnce(p)
		if n > 0 {
			b.failures = 0
			_, _ = b.verifier.Write(p[:n]) // a hash takes everything
			b.offset += int64(n)
			return n, nil // an error comes again, or the connection is replaced
		}
		if err == nil {
			continue
		}
		if errors.Is(err, io.EOF) {
			return 0, b.atEnd()
		}
		if b.failures++; b.failures >= b.retry.attempts || !passes(err) || b.ctx.Err() != nil || !b.retry.pause(b.ctx, b.failures) {
			return 0, fmt.Errorf("blob %s: %w", b.info.Digest, err)
		}
	}
}

// readOnce reads from the connection, making one if there is none. After an
// error there is none.
func (b *blob) readOnce(p []byte) (n int, err error) {
	if b.verified {
		return 0, io.EOF
	}
	if b.body == nil {
		if err := b.open(); err != nil {
			return 0, err
		}
	}
	n, err = b.body.Read(p)
	switch {
	case b.info.Size >= 0 && b.offset+int64(n) > b.info.Size:
		return 0, b.wrong("more than the %d bytes of the manifest", b.info.Size)
	case errors.Is(err, io.EOF) && b.offset+int64(n) < b.info.Size:
		err = io.ErrUnexpectedEOF
	}
	if err != nil && !errors.Is(err, io.EOF) {
		b.drop()
	}
	return n, err
}

// open connects and skips what was handed out already.
func (b *blob) open() error {
	if b.offset > 0 {
		body, err := b.src.openRange(b.ctx, b.info, byteRange{b.offset, toEnd})
		if err == nil {
			b.body = body
			return nil
		}
		if passes(err) {
			return err
		}
	}
	body, err := b.src.openBlob(b.ctx, b.info)
	if err != nil {
		return err
	}
	b.body = body
	if _, err := io.CopyN(io.Discard, body, b.offset); err != nil {
		b.drop()
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	return nil
}

func (b *blob) atEnd() error {
	if !b.verified && !b.verifier.Verified() {
		return b.wrong("its digest is another")
	}
	b.verified = true
	return io.EOF
}

func (b *blob) wrong(format string, args ...any) error {
	return errkind.Errorf(errkind.Unavailable, "blob %s: %w: %s", b.info.Digest, errWrongContent, fmt.Sprintf(format, args...))
}

func (b *blob) drop() {
	if b.body != nil {
		_ = b.body.Close() // it was only read
		b.body = nil
	}
}

// Close gives up the connection.
func (b *blob) Close() { b.drop() }
