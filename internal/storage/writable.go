package storage

import (
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-cri/gantry/internal/id"
)

// What writable layers occupy is found by walking them, one at a time, on a
// thread of the lowest priority, while somebody asks. A layer that takes long
// is walked less often than every period.
const (
	// askedFor is for how many periods after the last question it goes on.
	askedFor = 6
	// walkShare bounds the work on one layer: a walk is followed by a pause of
	// so many times its duration.
	walkShare = 10
)

// ContainersUsage is the sum over all writable layers, from memory.
func (s *Store) ContainersUsage() Usage {
	s.usage.mu.Lock()
	defer s.usage.mu.Unlock()
	s.askLocked()
	return s.usage.total
}

// ContainerUsage is one container's writable layer as last measured; false
// before the first measurement, which asking starts.
func (s *Store) ContainerUsage(ctr id.Container) (Usage, bool) {
	s.usage.mu.Lock()
	defer s.usage.mu.Unlock()
	s.askLocked()
	u, ok := s.usage.containers[ctr]
	if !ok {
		select {
		case s.usage.fresh <- struct{}{}:
		default: // it knows already
		}
	}
	return u, ok
}

// askLocked keeps the measurements going. Caller holds s.usage.mu.
func (s *Store) askLocked() {
	s.usage.asked = time.Now()
	if !s.usage.walking {
		s.usage.walking = true
		s.tasks.Go(s.keepMeasuring)
	}
}

func (s *Store) keepMeasuring() {
	ticks := time.NewTicker(s.usage.period)
	defer ticks.Stop()
	for all := true; s.stillAsked(); {
		s.measureContainers(all)
		select {
		case <-ticks.C:
			all = true
		case <-s.usage.fresh:
			all = false
		case <-s.usage.stop:
			return
		}
	}
}

func (s *Store) stillAsked() bool {
	s.usage.mu.Lock()
	defer s.usage.mu.Unlock()
	s.usage.walking = time.Since(s.usage.asked) < askedFor*s.usage.period
	return s.usage.walking
}

// measureContainers measures all writable layers that are due, or those that
// never were, one after the other, on a thread that ends with it: nothing gives
// a thread its priority back.
func (s *Store) measureContainers(all bool) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		lowerPriority()
		for _, ctr := range s.containers() {
			select {
			case <-s.usage.stop:
				return
			default:
				s.measureContainer(ctr, all)
			}
		}
	}()
	<-done
	s.usage.mu.Lock()
	defer s.usage.mu.Unlock()
	s.usage.total.At = time.Now()
	s.usage.sumLocked()
}

// lowerPriority makes the calling thread run when nothing else wants to. Where
// that fails, it only competes.
func lowerPriority() {
	const idleClass = 3 << 13 // IOPRIO_CLASS_IDLE: ioprio_set(2)
	_ = unix.Setpriority(unix.PRIO_PROCESS, 0, 19)
	_, _, _ = unix.Syscall(unix.SYS_IOPRIO_SET, 1, 0, idleClass)
}

func (s *Store) measureContainer(ctr id.Container, again bool) {
	s.usage.mu.Lock()
	last, took := s.usage.containers[ctr].At, s.usage.measured[ctr]
	s.usage.mu.Unlock()
	if !last.IsZero() && (!again || time.Since(last) < walkShare*took) {
		return
	}
	begin := time.Now()
	if u, err := measure(s.rootFS(ctr, "", nil).Upper); err == nil {
		s.noteContainer(ctr, u, time.Since(begin))
	}
}

// containers lists the containers that have a writable layer.
func (s *Store) containers() []id.Container {
	s.mu.Lock()
	defer s.mu.Unlock()
	ids := make([]id.Container, 0, len(s.uses))
	for ctr := range s.uses {
		ids = append(ids, ctr)
	}
	return ids
}

// noteContainer keeps a figure, unless the container went meanwhile.
func (s *Store) noteContainer(ctr id.Container, u Usage, took time.Duration) {
	s.usage.mu.Lock()
	defer s.usage.mu.Unlock()
	s.mu.Lock()
	_, there := s.uses[ctr]
	s.mu.Unlock()
	if there {
		s.usage.containers[ctr], s.usage.measured[ctr] = u, took
	}
}

func (b *usageBook) forgetContainer(ctr id.Container) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.containers, ctr)
	delete(b.measured, ctr)
	b.total.Bytes, b.total.Inodes = sum(b.containers)
}
