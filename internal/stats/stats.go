// Package stats turns what the kernel counts (control groups of version 1 and
// 2, network interfaces, processes) into the CRI's stats and metrics. A request
// reads a handful of small kernel files for each container, which never wait;
// what is dearer (open files, sockets, the states of tasks, limits) is sampled
// in the background while somebody asks, and what writable layers occupy is
// told by the storage. Containers in a sandbox with a kernel of its own are
// asked for in the background too. No request starts a process.
package stats

import (
	"context"
	"sync"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/internal/id"
	"github.com/gantry-cri/gantry/internal/node"
)

// Pod is what is measured of a pod.
type Pod struct {
	ID         id.Pod
	Attributes *runtimeapi.PodSandboxAttributes
	// Cgroup is the parent of all the pod's cgroups.
	Cgroup string
	// Shared says that other pods have the same parent: then the pod's usage is
	// the sum over Parts and its containers.
	Shared bool
	// Parts are the cgroups of the pod that are no container's: the first is
	// the pause container's.
	Parts []string
	// PausePID is a process in the pod's network namespace, which is pinned at
	// NetNS. NetNS is "" for a pod on the node's network, which has no counters of
	// its own.
	PausePID   int
	NetNS      string
	CreatedAt  time.Time
	Containers []Container
}

// Container is what is measured of a container.
type Container struct {
	ID         id.Container
	Attributes *runtimeapi.ContainerAttributes
	Cgroup     string
	Image      string // as asked for
	PID        int    // of the init
	StartedAt  time.Time
	// Tell asks the sandbox that the container's processes are in; it is nil
	// where they are processes of the node, in Cgroup. It is called beside all
	// requests, with a deadline that it must keep.
	Tell func(context.Context) (Told, error)
	// Exited says that only its writable layer is left to measure, whether or
	// not its cgroup is still there. Lists have none of these.
	Exited bool
}

// Layer is what a container's writable layer occupies.
type Layer struct {
	Bytes, Inodes uint64
	At            time.Time // when it was measured
}

// Options are what a Collector works with.
type Options struct {
	Node node.Facts
	// Period is how often the background sampler looks while somebody asks.
	Period time.Duration
	// Pods lists every pod that is not stopped, from memory.
	Pods func() []Pod
	// Layer is a container's writable layer, from memory; false if it was not
	// measured yet.
	Layer func(id.Container) (Layer, bool)
	// LayersDir is the directory that holds the writable layers.
	LayersDir string
	// LayersMountpoint is where its file system is mounted.
	LayersMountpoint string
	// Interface is the name of a pod's default network interface.
	Interface string
}

// Collector reads counters. Make one with New, end it with Close. Its methods
// may be called concurrently and never wait for anything but the kernel's
// in-memory files.
type Collector struct {
	opts    Options
	sources [fileCount]source
	devices deviceNames
	fds     descriptorBudget

	mu      sync.Mutex        // guards the maps; held for looking up only
	groups  map[string]*group // by cgroup path
	encoded map[id.Pod]*encodedPod

	sampler sampler
	asker   asker
}

// New returns a collector. It does nothing until it is asked.
func New(o Options) *Collector {
	c := &Collector{
		opts:    o,
		sources: sourcesOf(o.Node),
		devices: deviceNames{known: make(map[device]string)},
		fds:     newDescriptorBudget(o.Node),
		groups:  make(map[string]*group),
		encoded: make(map[id.Pod]*encodedPod),
		asker:   newAsker(),
	}
	c.sampler.life, c.sampler.end = context.WithCancel(context.Background())
	return c
}

// Close ends the background sampling and closes every kept file.
func (c *Collector) Close() {
	c.sampler.close()
	c.forgetAll()
}

// group returns what is kept of a cgroup.
func (c *Collector) group(path string) *group {
	c.mu.Lock()
	defer c.mu.Unlock()
	g, ok := c.groups[path]
	if !ok {
		g = &group{path: path}
		c.groups[path] = g
	}
	return g
}

// forgetAll closes every kept file and drops what was sampled.
func (c *Collector) forgetAll() {
	c.prune(nil)
	c.pruneEncoded(nil)
}

// prune forgets the cgroups that keep does not have.
func (c *Collector) prune(keep map[string]bool) {
	c.mu.Lock()
	var gone []*group
	for path, g := range c.groups {
		if !keep[path] {
			gone = append(gone, g)
			delete(c.groups, path)
		}
	}
	c.mu.Unlock()
	for _, g := range gone {
		g.close(&c.fds)
	}
}
