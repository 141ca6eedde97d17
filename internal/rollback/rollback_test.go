package rollback

import (
	"context"
	"errors"
	"slices"
	"testing"
)

func TestOnErrorUndoesEverythingLastFirst(t *testing.T) {
	var ran []string
	step := func(name string, err error) func(context.Context) error {
		return func(ctx context.Context) error {
			ran = append(ran, name)
			return errors.Join(err, ctx.Err())
		}
	}
	stuck := errors.New("stuck")
	cause := errors.New("cause")
	operation := func() (err error) {
		ctx, cancel := context.WithCancel(context.Background())
		var s Stack
		defer s.OnError(ctx, &err)
		s.Push("a", step("a", nil))
		s.Push("b", step("b", stuck))
		s.Push("c", step("c", nil))
		cancel() // the caller went away: undoing goes on
		return cause
	}
	err := operation()
	if !slices.Equal(ran, []string{"c", "b", "a"}) {
		t.Errorf("undone in the order %v, want c, b, a", ran)
	}
	if !errors.Is(err, cause) || !errors.Is(err, stuck) || errors.Is(err, context.Canceled) {
		t.Errorf("error %v; want cause and stuck, and no cancellation", err)
	}
}

func TestOnErrorDoesNothingWithoutError(t *testing.T) {
	var s Stack
	var err error
	s.Push("a", func(context.Context) error { t.Error("undone"); return nil })
	s.OnError(context.Background(), &err)
}
