package events

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"
)

type told struct {
	n  int
	at time.Time
}

func number(n int) func(time.Time) told {
	return func(at time.Time) told { return told{n, at} }
}

// next fails the test unless the next event is n.
func next(t *testing.T, s *Subscription[told], n int) told {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	e, err := s.Next(ctx)
	if err != nil || e.n != n {
		t.Fatalf("got event %d, %v; want %d", e.n, err, n)
	}
	return e
}

func TestEverySubscriberHearsAllInOrder(t *testing.T) {
	h := NewHub[told](100)
	subs := []*Subscription[told]{h.Subscribe(), h.Subscribe(), h.Subscribe()}
	for i := range 50 {
		h.Publish(number(i))
	}
	for _, s := range subs {
		var last time.Time
		for i := range 50 {
			e := next(t, s, i)
			if !e.at.After(last) {
				t.Fatalf("event %d is not later than the one before", i)
			}
			last = e.at
		}
		s.Close()
		s.Close()
		if _, err := s.Next(context.Background()); err != nil {
			t.Errorf("after Close: %v", err)
		}
	}
	h.Publish(func(time.Time) told { t.Error("an event is made for nobody"); return told{} })
}

func TestSlowSubscriberIsDroppedAlone(t *testing.T) {
	h := NewHub[told](4)
	slow, quick := h.Subscribe(), h.Subscribe()
	defer quick.Close()
	for i := range 20 {
		h.Publish(number(i))
		next(t, quick, i)
	}
	select {
	case <-slow.Ended():
	default:
		t.Fatal("the slow subscriber is not dropped")
	}
	if _, err := slow.Next(context.Background()); !errors.Is(err, ErrTooSlow) {
		t.Errorf("got %v, want ErrTooSlow", err)
	}
	slow.Close()
	if !errors.Is(slow.Err(), ErrTooSlow) {
		t.Errorf("Close changed the reason to %v", slow.Err())
	}
}

func TestSetQueue(t *testing.T) {
	h := NewHub[told](1)
	before := h.Subscribe()
	defer before.Close()
	h.SetQueue(10)
	after := h.Subscribe()
	defer after.Close()
	for i := range 10 {
		h.Publish(number(i))
	}
	if !errors.Is(before.Err(), ErrTooSlow) || after.Err() != nil {
		t.Errorf("with a queue of 1: %v; of 10: %v", before.Err(), after.Err())
	}
}

func TestWhatNobodyHeardIsKept(t *testing.T) {
	h := NewHub[told](1)
	h.Publish(number(1)) // not kept
	for i := 2; i < 6; i++ {
		h.PublishOrKeep(fmt.Sprint(i), number(i))
	}
	h.PublishOrKeep("2", number(22)) // replaces, and is later
	h.Forget("4")
	h.Forget("none")
	for range 2 { // each subscriber, and more of them than it has room for otherwise
		s := h.Subscribe()
		for _, n := range []int{3, 5, 22} {
			next(t, s, n)
		}
		h.PublishOrKeep("heard", number(7))
		next(t, s, 7)
		s.Close()
	}
	for _, key := range []string{"2", "3", "5"} {
		h.Forget(key)
	}
	s := h.Subscribe()
	defer s.Close()
	h.Publish(number(8))
	next(t, s, 8)
}

func TestCloseEndsSubscriptions(t *testing.T) {
	h := NewHub[told](4)
	before := h.Subscribe()
	h.Close()
	for _, s := range []*Subscription[told]{before, h.Subscribe()} {
		if _, err := s.Next(context.Background()); !errors.Is(err, ErrClosed) {
			t.Errorf("got %v, want ErrClosed", err)
		}
		s.Close()
	}
}

func TestNextEndsWithItsContext(t *testing.T) {
	s := NewHub[told](4).Subscribe()
	defer s.Close()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := s.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the context's error", err)
	}
}

// TestManyAtOnce: publishers, subscribers that come and go, and one that reads
// everything, at the same time.
func TestManyAtOnce(t *testing.T) {
	const publishers, each = 8, 500
	h := NewHub[told](publishers * each)
	s := h.Subscribe()
	defer s.Close()
	var wg sync.WaitGroup
	for p := range publishers {
		wg.Go(func() {
			for i := range each {
				h.PublishOrKeep("key", number(p*each+i))
			}
		})
		wg.Go(func() {
			for range each / 10 {
				other := h.Subscribe()
				ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
				other.Next(ctx) //nolint:errcheck // whichever comes first
				cancel()
				other.Close()
			}
		})
	}
	latest := make(map[int]int)
	for range publishers * each {
		e, err := s.Next(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if last, ok := latest[e.n/each]; ok && e.n != last+1 {
			t.Fatalf("after %d of one publisher comes %d", last, e.n)
		}
		latest[e.n/each] = e.n
	}
	wg.Wait()
}
