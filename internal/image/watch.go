package image

import (
	"context"
	"errors"
	"io"
	"net/http/httptrace"
	"sync"
	"time"

	"github.com/containers/ocicrypt/config"
	"github.com/opencontainers/go-digest"
	"go.podman.io/image/v5/pkg/blobinfocache/none"
	"go.podman.io/image/v5/types"

	"github.com/gantry-cri/gantry/internal/errkind"
	"github.com/gantry-cri/gantry/internal/storage"
)

// errStalled is the cause of a context that a watch ended.
var errStalled = errors.New("stalled")

// watch ends a transfer when the registry lets it wait too long. Only the
// time in which we wait for the registry counts: a slow disk is no stall, and
// neither is a long transfer.
type watch struct {
	limit    time.Duration
	cancel   context.CancelCauseFunc
	progress *progress
}

// newWatch derives a context that ends with errStalled.
func newWatch(ctx context.Context, limit time.Duration, p *progress) (context.Context, *watch) {
	ctx, cancel := context.WithCancelCause(ctx)
	return ctx, &watch{limit: limit, cancel: cancel, progress: p}
}

func (w *watch) close() { w.cancel(nil) }

// begin says that we wait for the registry until done is called.
func (w *watch) begin() (done func()) {
	timer := time.AfterFunc(w.limit, func() { w.cancel(errStalled) })
	return func() { timer.Stop() }
}

// longestPause is how long the library waits, at most, where a registry asks
// to be left alone for a while (429).
const longestPause = time.Minute

// request is begin for a call of the library that may make several requests,
// with pauses between them: those are not the registry's silence.
func (w *watch) request(ctx context.Context) (_ context.Context, done func()) {
	timer := time.AfterFunc(w.limit, func() { w.cancel(errStalled) })
	var mu sync.Mutex // guards over
	over := false
	again := func(limit time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		if !over {
			timer.Reset(limit)
		}
	}
	trace := httptrace.ClientTrace{
		GetConn:              func(string) { again(w.limit) },
		GotFirstResponseByte: func() { again(w.limit + longestPause) },
	}
	return httptrace.WithClientTrace(ctx, &trace), func() {
		mu.Lock()
		defer mu.Unlock()
		over = true
		timer.Stop()
	}
}

// explain replaces the errors that follow from a stall by what happened.
func (w *watch) explain(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), errStalled) {
		return errkind.Errorf(errkind.Timeout, "no byte from the registry for %s (after %d bytes)", w.limit, w.progress.get().Received)
	}
	return err
}

// watchedSource watches every wait for the registry, and asks again where the
// registry failed in a way that passes.
type watchedSource struct {
	types.ImageSource
	w      *watch
	retry  retrier
	limits Limits
	layers storage.Limits        // of each
	keys   *config.DecryptConfig // of an image with encrypted layers
}

func (s *watchedSource) GetManifest(ctx context.Context, instance *digest.Digest) (body []byte, mediaType string, err error) {
	err = s.retry.do(ctx, "manifest", func() (err error) {
		ctx, done := s.w.request(ctx)
		defer done()
		body, mediaType, err = s.ImageSource.GetManifest(ctx, instance)
		return err
	})
	if err == nil {
		err = s.limits.document("manifest", int64(len(body)))
	}
	return body, mediaType, senseless(err)
}

func (s *watchedSource) GetSignatures(ctx context.Context, instance *digest.Digest) ([][]byte, error) {
	defer s.w.begin()()
	return s.ImageSource.GetSignatures(ctx, instance)
}

// GetBlob is what the library reads small blobs through.
func (s *watchedSource) GetBlob(ctx context.Context, info types.BlobInfo, _ types.BlobInfoCache) (io.ReadCloser, int64, error) {
	if err := s.limits.document("configuration", info.Size); err != nil {
		return nil, 0, err
	}
	body, err := newBlob(ctx, s, info, s.retry)
	if err != nil {
		return nil, 0, err
	}
	return closer{body, body.Close}, info.Size, nil
}

// openBlob asks for a blob once.
func (s *watchedSource) openBlob(ctx context.Context, info types.BlobInfo) (io.ReadCloser, error) {
	ctx, done := s.w.request(ctx)
	defer done()
	body, _, err := s.ImageSource.GetBlob(ctx, info, none.NoCache)
	if err != nil {
		return nil, err
	}
	return &watchedBody{body, s.w}, nil
}

// openRange asks for a part of a blob, once.
func (s *watchedSource) openRange(ctx context.Context, info types.BlobInfo, r byteRange) (io.ReadCloser, error) {
	ctx, done := s.w.request(ctx)
	defer done()
	body, err := openRange(ctx, s.ImageSource, info, r)
	if err != nil {
		return nil, err
	}
	return &watchedBody{body, s.w}, nil
}

// watchedBody is a blob on its way.
type watchedBody struct {
	io.ReadCloser
	w *watch
}

func (b *watchedBody) Read(p []byte) (int, error) {
	defer b.w.begin()()
	n, err := b.ReadCloser.Read(p)
	b.w.progress.received(n)
	return n, err
}
