package stats

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-cri/gantry/internal/id"
)

// sampler is the background half of a Collector. It runs while somebody asks:
// an idle node does nothing.
type sampler struct {
	life context.Context // ends when the collector is closed
	end  context.CancelFunc
	done sync.WaitGroup

	mu           sync.Mutex // guards the fields below
	running      bool
	closed       bool
	asked        time.Time // the last request
	askedDetails time.Time // the last request for metrics

	fs atomic.Pointer[fileSystem] // nil before the first sample
}

// fileSystem is the one of the writable layers.
type fileSystem struct {
	at                 time.Time
	bytes              uint64
	inodes, inodesFree uint64
	device             device
}

// idlePeriods is for how many periods without a request the sampler goes on.
const idlePeriods = 6

// wake notes a request, and starts the sampler if it does not run.
func (c *Collector) wake(details bool) {
	s := &c.sampler
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = time.Now()
	first := details && !c.wantedLocked(s.askedDetails)
	if details {
		s.askedDetails = s.asked
	}
	if s.closed {
		return
	}
	if !s.running {
		s.running = true
		s.done.Go(c.keepSampling)
	} else if first { // the next round may be a period away
		s.done.Go(func() { c.sample(true) })
	}
}

// wantedLocked tells whether what was last asked for then is still sampled.
func (c *Collector) wantedLocked(asked time.Time) bool {
	return time.Since(asked) < idlePeriods*c.opts.Period
}

func (c *Collector) keepSampling() {
	ticks := time.NewTicker(c.opts.Period)
	defer ticks.Stop()
	for {
		wanted, details := c.wanted()
		if !wanted {
			c.forgetAll() // nothing is kept open for nobody
			return
		}
		c.sample(details)
		select {
		case <-ticks.C:
		case <-c.sampler.life.Done():
			return
		}
	}
}

// wanted tells whether anybody asks; if not, the sampler counts as ended.
func (c *Collector) wanted() (wanted, details bool) {
	s := &c.sampler
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running = c.wantedLocked(s.asked)
	return s.running, c.wantedLocked(s.askedDetails)
}

func (s *sampler) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.end()
	s.done.Wait()
}

// sample looks at every container once, has the sandboxes asked that are to be,
// and forgets cgroups that have gone.
func (c *Collector) sample(withDetails bool) {
	pods := c.opts.Pods()
	keep, encoded := make(map[string]bool, 3*len(pods)), make(map[id.Pod]bool)
	s := &scratch{}
	note := func(path string) {
		keep[path] = true
		c.notePoint(path, s)
	}
	if withDetails {
		c.sampleFileSystem()
	}
	for i := range pods {
		p := &pods[i]
		if p.Shared {
			for _, part := range p.Parts {
				note(part)
			}
		} else {
			note(p.Cgroup)
			if len(p.Parts) > 0 {
				keep[p.Parts[0]] = true // for the network
			}
		}
		for j := range p.Containers {
			ctr := &p.Containers[j]
			if ctr.Tell == nil {
				note(ctr.Cgroup)
			} else {
				keep[ctr.Cgroup] = true
			}
			if !withDetails {
				continue
			}
			if d := c.sampleDetails(ctr, s); d != nil {
				c.group(ctr.Cgroup).details.Store(d)
			}
		}
		if withDetails {
			c.encode(p, s)
			encoded[p.ID] = true
		}
		c.ask(p)
	}
	c.prune(keep)
	c.pruneEncoded(encoded)
}

// notePoint reads a cgroup's CPU usage for the rate.
func (c *Collector) notePoint(path string, s *scratch) {
	g := c.group(path)
	g.mu.Lock()
	defer g.mu.Unlock()
	c.cpuLocked(g, time.Now(), s)
}

// sampleFileSystem asks the file system of the writable layers, which may hang.
func (c *Collector) sampleFileSystem() {
	var fs unix.Statfs_t
	var st unix.Stat_t
	if unix.Statfs(c.opts.LayersDir, &fs) != nil || unix.Stat(c.opts.LayersDir, &st) != nil {
		return
	}
	c.sampler.fs.Store(&fileSystem{
		at:         time.Now(),
		bytes:      fs.Blocks * uint64(fs.Bsize),
		inodes:     fs.Files,
		inodesFree: fs.Ffree,
		device:     deviceOf(st.Dev),
	})
}
