// Package flight lets a mutating operation outlive the call that began it: a
// caller whose deadline passes leaves the work running, and the retry with the
// same key joins it. It is what makes "the name is reserved" impossible.
package flight

import (
	"context"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/gantry-cri/gantry/internal/errkind"
)

// Group joins operations that have the same key. The zero value is ready.
type Group struct {
	flights singleflight.Group
}

// Do runs fn in a goroutine of its own, unless one with this key is in flight:
// then it joins that one. It returns fn's result, or an error of kind
// errkind.Timeout once ctx is done; fn goes on then. fn's context keeps ctx's
// values but has neither its deadline nor its cancellation: it ends after
// limit.
func Do[T any](ctx context.Context, g *Group, key string, limit time.Duration, fn func(context.Context) (T, error)) (T, error) {
	done := g.flights.DoChan(key, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
		defer cancel()
		return fn(ctx)
	})
	var none T
	select {
	case r := <-done:
		if r.Err != nil {
			return none, r.Err
		}
		return r.Val.(T), nil
	case <-ctx.Done():
		return none, errkind.Errorf(errkind.Timeout, "%s: still under way, a retry joins it: %w", key, context.Cause(ctx))
	}
}
