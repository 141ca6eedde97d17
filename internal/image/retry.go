package image

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"time"

	"go.podman.io/image/v5/docker"
	"golang.org/x/sys/unix"

	"github.com/gantry-cri/gantry/internal/errkind"
)

// How often something is asked in all: of a registry, and of a mirror when
// there is another server to turn to.
const (
	retryAttempts  = 4
	mirrorAttempts = 2
)

// retrier asks again when a registry failed in a way that passes.
type retrier struct {
	attempts int
	delay    time.Duration // before the second attempt; doubled for each one after
	log      *slog.Logger
}

// do runs fn until it succeeds, fails for good, or has failed often enough.
func (r retrier) do(ctx context.Context, what string, fn func() error) error {
	for attempt := 1; ; attempt++ {
		err := fn()
		if err == nil || attempt == r.attempts || !passes(err) || ctx.Err() != nil {
			return err
		}
		r.log.Debug("registry failed, asking again", "what", what, "attempt", attempt, "err", err)
		if !r.pause(ctx, attempt) {
			return err
		}
	}
}

// pause waits before another attempt; false if ctx ended.
func (r retrier) pause(ctx context.Context, attempt int) bool {
	d := r.delay << (attempt - 1)
	timer := time.NewTimer(d + rand.N(d/4+1)) // not all nodes at once
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// passes reports whether an error may be over soon. The library has waited for
// a registry that said when to come back (429) by itself.
func passes(err error) bool {
	var cert *tls.CertificateVerificationError
	var dns *net.DNSError
	switch {
	case errors.Is(err, docker.ErrTooManyRequests), errors.Is(err, unix.ECONNREFUSED), errors.Is(err, http.ErrSchemeMismatch), errors.Is(err, errWrongContent):
		return false
	case errors.As(err, &cert), errors.As(err, &dns):
		return false
	}
	return errkind.Of(classify(err)) == errkind.Unavailable
}
