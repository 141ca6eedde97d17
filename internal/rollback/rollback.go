// Package rollback is the undo stack of a mutating operation: each step that has
// a side effect pushes its undo, and an operation that fails runs them all.
package rollback

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Timeout bounds one whole run of the undo functions. It does not depend on
// the caller's deadline, which has often passed by the time we undo.
const Timeout = 2 * time.Minute

// Stack is a LIFO of undo functions. The zero value is ready to use.
// A Stack belongs to one operation and is not safe for concurrent use.
type Stack struct {
	undos []undo
}

type undo struct {
	name string
	fn   func(context.Context) error
}

// Push adds an undo function; name says what it undoes, in an error's words
// ("remove network"). Undo functions must be idempotent.
func (s *Stack) Push(name string, fn func(context.Context) error) {
	s.undos = append(s.undos, undo{name, fn})
}

// Run undoes everything, last step first, on a context detached from ctx's
// cancellation and deadline. Every function runs, whatever the others
// returned; the errors are joined. Afterwards the stack is empty.
func (s *Stack) Run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), Timeout)
	defer cancel()
	var errs []error
	for len(s.undos) > 0 {
		u := s.undos[len(s.undos)-1]
		s.undos = s.undos[:len(s.undos)-1]
		if err := u.fn(ctx); err != nil {
			errs = append(errs, fmt.Errorf("undo: %s: %w", u.name, err))
		}
	}
	return errors.Join(errs...)
}

// OnError runs the stack if *err is not nil and joins what failed to *err.
// It is meant for one deferred call: defer undo.OnError(ctx, &err).
func (s *Stack) OnError(ctx context.Context, err *error) {
	if *err != nil {
		*err = errors.Join(*err, s.Run(ctx))
	}
}
