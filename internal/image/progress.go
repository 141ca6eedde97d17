package image

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// Progress is how far a transfer is.
type Progress struct {
	Image      string    `json:"image"`          // as it was asked for
	From       string    `json:"from,omitempty"` // the repository that the bytes come from: a mirror's, or the registry's
	Started    time.Time `json:"started"`
	Received   int64     `json:"received"`         // bytes from this server
	Total      int64     `json:"total"`            // bytes of the layers that are not stored yet, less Reused; 0 until the manifest is there
	Reused     int64     `json:"reused,omitempty"` // bytes of the layers that need not come: their content is stored
	Layers     int       `json:"layers"`           // that are not stored yet
	LayersDone int       `json:"layers_done"`      // of these, downloaded and unpacked
}

// progress is the Progress of a transfer under way.
type progress struct {
	mu  sync.Mutex // guards now
	now Progress
}

func newProgress(image string) *progress {
	return &progress{now: Progress{Image: image, Started: time.Now()}}
}

func (p *progress) change(f func(*Progress)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(&p.now)
}

func (p *progress) get() Progress {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.now
}

// from says that a transfer from another server begins, which has sent nothing yet.
func (p *progress) from(repo string) {
	p.change(func(now *Progress) {
		*now = Progress{Image: now.Image, Started: now.Started, From: repo}
	})
}

func (p *progress) received(n int) { p.change(func(now *Progress) { now.Received += int64(n) }) }

func (p *progress) reused(n int64) {
	p.change(func(now *Progress) {
		now.Reused += n
		now.Total -= n
	})
}

func (p *progress) missing(jobs []layerJob) {
	p.change(func(now *Progress) {
		now.Layers = len(jobs)
		for _, job := range jobs {
			now.Total += max(job.blob.Size, 0)
		}
	})
}

func (p *progress) layerDone() { p.change(func(now *Progress) { now.LayersDone++ }) }

// progressPeriod is how often a long transfer tells how far it is.
const progressPeriod = 10 * time.Second

// tell writes to the log until the returned function is called.
func (p *progress) tell(log *slog.Logger) (stop func()) {
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		ticks := time.NewTicker(progressPeriod)
		defer ticks.Stop()
		before := int64(0)
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticks.C:
			}
			now := p.get()
			log.Info("pulling", "image", now.Image, "from", now.From, "received", now.Received, "of", now.Total,
				"bytes_per_second", max(now.Received-before, 0)/int64(progressPeriod/time.Second),
				"layers", now.Layers, "layers_done", now.LayersDone)
			before = now.Received
		}
	}()
	return stop
}

// Pulls tells how far the transfers under way are, the oldest first.
func (s *Service) Pulls() []Progress {
	list := s.flights.progress()
	slices.SortFunc(list, func(a, b Progress) int { return a.Started.Compare(b.Started) })
	return list
}
