package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	"go.podman.io/image/v5/types"

	"github.com/gantry-cri/gantry/internal/errkind"
)

// errStalled is the cause of a context that a watch ended.
var errStalled = errors.New("stalled")

// watch ends a transfer when the registry lets it wait too long. Only the
// time in which we wait for the registry counts: a slow disk is no stall, and
// neither is a long transfer.
type watch struct {
	limit  time.Duration
	cancel context.CancelCauseFunc
	bytes  atomic.Int64 // received so far
}

// newWatch derives a context that ends with errStalled.
func newWatch(ctx context.Context, limit time.Duration) (context.Context, *watch) {
	ctx, cancel := context.WithCancelCause(ctx)
	return ctx, &watch{limit: limit, cancel: cancel}
}

func (w *watch) close() { w.cancel(nil) }

// begin says that we wait for the registry until done is called.
func (w *watch) begin() (done func()) {
	timer := time.AfterFunc(w.limit, func() { w.cancel(errStalled) })
	return func() { timer.Stop() }
}

// explain replaces the errors that follow from a stall by what happened.
func (w *watch) explain(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), errStalled) {
		return errkind.Errorf(errkind.Timeout, "no byte from the registry for %s (after %d bytes)", w.limit, w.bytes.Load())
	}
	return err
}

// watchedSource watches every wait for the registry.
type watchedSource struct {
	types.ImageSource
	w *watch
}

func (s *watchedSource) GetManifest(ctx context.Context, instance *digest.Digest) ([]byte, string, error) {
	defer s.w.begin()()
	return s.ImageSource.GetManifest(ctx, instance)
}

func (s *watchedSource) GetSignatures(ctx context.Context, instance *digest.Digest) ([][]byte, error) {
	defer s.w.begin()()
	return s.ImageSource.GetSignatures(ctx, instance)
}

func (s *watchedSource) GetBlob(ctx context.Context, info types.BlobInfo, cache types.BlobInfoCache) (io.ReadCloser, int64, error) {
	defer s.w.begin()()
	if err := info.Digest.Validate(); err != nil {
		return nil, 0, fmt.Errorf("blob %q: %w", info.Digest, err)
	}
	body, size, err := s.ImageSource.GetBlob(ctx, info, cache)
	if err != nil {
		return nil, 0, err
	}
	return &watchedBody{ReadCloser: body, w: s.w, digest: info.Digest, verifier: info.Digest.Verifier()}, size, nil
}

// watchedBody is a blob on its way. It checks the digest although the library
// does too: the library's errors don't tell a lying registry from a bug.
type watchedBody struct {
	io.ReadCloser
	w        *watch
	digest   digest.Digest
	verifier digest.Verifier
}

func (b *watchedBody) Read(p []byte) (int, error) {
	done := b.w.begin()
	n, err := b.ReadCloser.Read(p)
	done()
	b.w.bytes.Add(int64(n))
	_, _ = b.verifier.Write(p[:n]) // a hash takes everything
	switch {
	case err == io.EOF && !b.verifier.Verified():
		err = errkind.Errorf(errkind.Unavailable, "blob %s: the registry sent something else", b.digest)
	case err != nil && err != io.EOF:
		err = fmt.Errorf("blob %s: %w", b.digest, err)
	}
	return n, err
}
