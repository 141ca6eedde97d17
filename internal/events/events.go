// Package events hands what happens to containers to whoever subscribes.
// Nothing that happens waits for a subscriber: each has a bounded queue, and one
// that falls too far behind is dropped, alone.
package events

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"
)

// Kind is what happened to a container or a pod.
type Kind int

// The kinds, in the order in which they come.
const (
	Created Kind = iota + 1
	Started
	Stopped
	Deleted
)

func (k Kind) String() string {
	switch k {
	case Created:
		return "created"
	case Started:
		return "started"
	case Stopped:
		return "stopped"
	case Deleted:
		return "deleted"
	}
	return "unknown"
}

var (
	// ErrTooSlow ends a subscription whose queue is full.
	ErrTooSlow = errors.New("the subscriber reads too slowly: events were dropped")
	// ErrClosed ends the subscriptions of a hub that was closed.
	ErrClosed = errors.New("the daemon is stopping")
)

// Hub fans events out. Make one with NewHub. It is safe for concurrent use.
//
// The functions that make events are called with the hub's lock held, once for
// all subscribers: they may look at what is in memory, and neither wait nor
// call the hub. Their events' times only grow.
type Hub[E any] struct {
	mu          sync.Mutex // guards what follows
	queue       int
	subscribers map[*Subscription[E]]struct{}
	kept        map[string]kept[E]
	keptEver    int       // counts what was kept
	last        time.Time // of the latest event
	closed      bool
}

// kept is an event that nobody has heard.
type kept[E any] struct {
	n     int // in the order in which it happened
	event func(time.Time) E
}

// NewHub returns a hub whose subscribers may be queue events behind.
func NewHub[E any](queue int) *Hub[E] {
	return &Hub[E]{
		queue:       queue,
		subscribers: make(map[*Subscription[E]]struct{}),
		kept:        make(map[string]kept[E]),
	}
}

// SetQueue lets later subscribers be queue events behind.
func (h *Hub[E]) SetQueue(queue int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.queue = queue
}

// Publish hands an event to every subscriber. It never waits.
func (h *Hub[E]) Publish(event func(at time.Time) E) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.publishLocked(event)
}

// PublishOrKeep is Publish for what should not go unheard: without a subscriber
// the event is kept, and every later one begins with it, made anew, until Forget.
func (h *Hub[E]) PublishOrKeep(key string, event func(at time.Time) E) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.subscribers) == 0 {
		h.keptEver++
		h.kept[key] = kept[E]{h.keptEver, event}
		return
	}
	h.publishLocked(event)
}

// Forget drops what was kept under key; nothing may have been.
func (h *Hub[E]) Forget(key string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.kept, key)
}

func (h *Hub[E]) publishLocked(event func(time.Time) E) {
	if len(h.subscribers) == 0 {
		return
	}
	e := event(h.nowLocked())
	for s := range h.subscribers {
		if !s.put(e) {
			h.endLocked(s, ErrTooSlow)
		}
	}
}

// nowLocked is a time after that of every earlier event, whatever the clock does.
func (h *Hub[E]) nowLocked() time.Time {
	now := time.Now()
	if !now.After(h.last) {
		now = h.last.Add(time.Nanosecond)
	}
	h.last = now
	return now
}

// Subscribe returns a subscription to what happens from now on; it begins with
// what was kept. It must be closed.
func (h *Hub[E]) Subscribe() *Subscription[E] {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := &Subscription[E]{
		hub:   h,
		room:  h.queue + len(h.kept),
		ready: make(chan struct{}, 1),
		ended: make(chan struct{}),
	}
	byAge := func(a, b kept[E]) int { return cmp.Compare(a.n, b.n) }
	for _, k := range slices.SortedFunc(maps.Values(h.kept), byAge) {
		s.put(k.event(h.nowLocked()))
	}
	h.subscribers[s] = struct{}{}
	if h.closed {
		h.endLocked(s, ErrClosed)
	}
	return s
}

// Close ends every subscription, those to come among them.
func (h *Hub[E]) Close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for s := range h.subscribers {
		h.endLocked(s, ErrClosed)
	}
}

func (h *Hub[E]) endLocked(s *Subscription[E], why error) {
	if _, ok := h.subscribers[s]; ok {
		delete(h.subscribers, s)
		s.end(why)
	}
}

// Subscription is one subscriber's view of a Hub.
type Subscription[E any] struct {
	hub   *Hub[E]
	room  int
	ready chan struct{} // holds one token while there may be something in queue
	ended chan struct{} // closed when there will be no more

	mu    sync.Mutex // guards what follows; taken after the hub's
	queue []E
	err   error // why it ended
}

// put reports whether there was room.
func (s *Subscription[E]) put(e E) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) >= s.room {
		return false
	}
	s.queue = append(s.queue, e)
	select {
	case s.ready <- struct{}{}:
	default:
	}
	return true
}

func (s *Subscription[E]) end(why error) {
	s.mu.Lock()
	s.queue, s.err = nil, why
	s.mu.Unlock()
	close(s.ended)
}

// Ended is closed when the subscription has ended; Err says why.
func (s *Subscription[E]) Ended() <-chan struct{} { return s.ended }

// Err is why the subscription has ended: ErrTooSlow, ErrClosed, or nil.
func (s *Subscription[E]) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Next returns the next event. It waits for one until ctx or the subscription
// ends. What was queued when the subscription ended is not returned.
func (s *Subscription[E]) Next(ctx context.Context) (E, error) {
	for {
		if e, ok := s.take(); ok {
			return e, nil
		}
		var none E
		select {
		case <-s.ready:
		case <-s.ended:
			return none, s.Err()
		case <-ctx.Done():
			return none, context.Cause(ctx)
		}
	}
}

func (s *Subscription[E]) take() (E, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var none E
	if len(s.queue) == 0 {
		return none, false
	}
	e := s.queue[0]
	s.queue[0] = none // for the garbage collector
	if s.queue = s.queue[1:]; len(s.queue) == 0 {
		s.queue = nil
	}
	return e, true
}

// Close ends the subscription; a second call does nothing.
func (s *Subscription[E]) Close() {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	s.hub.endLocked(s, nil)
}
