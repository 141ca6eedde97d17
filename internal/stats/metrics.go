package stats

import (
	"slices"
	"strconv"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Descriptors describe every metric that Metrics can tell. They never change.
func (c *Collector) Descriptors() []*runtimeapi.MetricDescriptor {
	all := families()
	out := make([]*runtimeapi.MetricDescriptor, 0, len(all))
	for i := range all {
		out = append(out, &runtimeapi.MetricDescriptor{Name: all[i].name, Help: all[i].help, LabelKeys: all[i].labelKeys()})
	}
	return out
}

func (f *family) labelKeys() []string {
	return append(commonLabels[:len(commonLabels):len(commonLabels)], f.labels...)
}

// Metrics tells the metrics of pods, in the order of the argument: those of the
// sampler's last round, up to a period ago, each with its time, and of a pod that
// has changed since, or in the first answer after a pause, those of now. What the
// sampler has not seen yet is left out then.
//
// The metrics are in the messages as encoded fields, for a hundred of each pod
// would make a hundred thousand objects: they are there for who decodes an
// answer, not for who asks for the fields of these messages.
func (c *Collector) Metrics(list []Pod) []*runtimeapi.PodSandboxMetrics {
	c.wake(true)
	return collect(len(list), func(i int, s *scratch) (*runtimeapi.PodSandboxMetrics, bool) {
		if m, ok := c.encodedMetrics(&list[i]); ok {
			return m, true
		}
		return c.podMetrics(&list[i], s, time.Time{})
	})
}

// subject is what metrics are told of: a pod, or a container.
type subject struct {
	c       *Collector
	usage   usage
	started time.Time
	// Of a container only:
	details   *details // nil before the first sample
	inSandbox bool     // its cgroup counts nothing
	told      *told    // of one in a sandbox; nil before the first answer
	layer     Layer
	layered   bool        // layer is known
	fs        *fileSystem // nil before the first sample
	// Of a pod only:
	net []netInterface
}

func (x *subject) device(d device) string { return x.c.devices.name(d) }

// podMetrics reads and encodes the metrics of a pod. What is read now gets the
// time at; none if it is zero.
func (c *Collector) podMetrics(p *Pod, s *scratch, at time.Time) (*runtimeapi.PodSandboxMetrics, bool) {
	md := p.Attributes.GetMetadata()
	u, ok := c.podUsage(p, s)
	if !ok {
		return nil, false // it has just been stopped
	}
	x := &subject{c: c, usage: u, started: p.CreatedAt}
	x.net, _ = c.network(p, s)
	fields := builder{common: labelValues(nil, "", p.Cgroup, "", "", md.GetNamespace(), md.GetName()), read: at, out: s.pod[:0]}
	fields.build(x, ofPod)
	for i := range p.Containers {
		ctr := &p.Containers[i]
		x, ok := c.containerSubject(ctr, s)
		if !ok {
			continue
		}
		b := builder{out: appendString(s.container[:0], containerIDField, string(ctr.ID)), read: at}
		b.common = labelValues(nil, ctr.Attributes.GetMetadata().GetName(), ctr.Cgroup, ctr.Image, string(ctr.ID), md.GetNamespace(), md.GetName())
		b.build(x, ofContainer)
		s.container = b.out
		fields.out = appendBytes(fields.out, containerMetricsField, b.out)
	}
	s.pod = fields.out
	out := &runtimeapi.PodSandboxMetrics{PodSandboxId: string(p.ID)}
	out.ProtoReflect().SetUnknown(slices.Clone(fields.out)) // encoded as if they were set
	return out, true
}

func (c *Collector) containerSubject(ctr *Container, s *scratch) (*subject, bool) {
	u, ok := c.containerUsage(ctr, s)
	if !ok {
		return nil, false
	}
	g := c.group(ctr.Cgroup)
	x := &subject{c: c, usage: u, started: ctr.StartedAt, details: g.details.Load(), fs: c.sampler.fs.Load()}
	if ctr.Tell != nil {
		x.inSandbox, x.told = true, g.told.Load()
	}
	x.layer, x.layered = c.opts.Layer(ctr.ID)
	return x, true
}

// seconds are the whole seconds of a number of nanoseconds: the CRI's metrics
// have no fractions.
func seconds(nanos uint64) uint64 { return nanos / uint64(time.Second) }

// ofMem tells what is known of all memory.
func ofMem(get func(*memory) uint64) func(*subject, *builder) {
	return func(x *subject, b *builder) {
		if x.usage.memory != nil {
			b.sampledAt(x.toldAt())
			b.add(get(x.usage.memory))
		}
	}
}

// ofMemPart tells a part of the memory.
func ofMemPart(get func(*memory) uint64) func(*subject, *builder) {
	return func(x *subject, b *builder) {
		if m := x.usage.memory; m != nil && !m.totalOnly {
			b.add(get(m))
		}
	}
}

// toldAt is when a sandbox told the usage; zero for what is read now.
func (x *subject) toldAt() time.Time {
	if !x.inSandbox {
		return time.Time{}
	}
	return x.usage.at
}

// sampled tells what the kernel counts of the cgroup.
func sampled(get func(*details) uint64) func(*subject, *builder) {
	known := configured(get)
	return func(x *subject, b *builder) {
		if !x.inSandbox {
			known(x, b)
		}
	}
}

// configured tells what the cgroup is set to, which is known though the
// processes be elsewhere.
func configured(get func(*details) uint64) func(*subject, *builder) {
	return func(x *subject, b *builder) {
		if x.details != nil {
			b.sampledAt(x.details.at)
			b.add(get(x.details))
		}
	}
}

// counted is sampled for what may be too much to count.
func counted(get func(*details) uint64) func(*subject, *builder) {
	return func(x *subject, b *builder) {
		if x.details != nil && x.details.complete {
			b.sampledAt(x.details.at)
			b.add(get(x.details))
		}
	}
}

// threads are counted by the node's kernel, or by the sandbox's.
func threads(x *subject, b *builder) {
	switch {
	case x.told != nil:
		b.sampledAt(x.told.at)
		b.add(x.told.Threads)
	case x.details != nil && !x.inSandbox:
		b.sampledAt(x.details.at)
		b.add(x.details.threads)
	}
}

func waiting(what int) func(*subject, *builder) {
	return func(x *subject, b *builder) {
		if p := x.usage.pressure[what]; p != nil {
			b.add(p.some.total / 1_000_000)
		}
	}
}

func stalled(what int) func(*subject, *builder) {
	return func(x *subject, b *builder) {
		if p := x.usage.pressure[what]; p != nil {
			b.add(p.full.total / 1_000_000)
		}
	}
}

func ofFileSystem(get func(*fileSystem) uint64) func(*subject, *builder) {
	return func(x *subject, b *builder) {
		if x.fs != nil {
			b.sampledAt(x.fs.at)
			b.add(get(x.fs), x.device(x.fs.device))
		}
	}
}

// perDevice tells a figure of each device that the container has used, and of
// the one that its writable layer is on.
func perDevice(get func(blockIO) uint64) func(*subject, *builder) {
	return func(x *subject, b *builder) {
		if x.details == nil || x.inSandbox {
			return
		}
		b.sampledAt(x.details.at)
		own := false
		for _, d := range x.details.io {
			own = own || x.fs != nil && d.device == x.fs.device
			b.add(get(d), x.device(d.device))
		}
		if x.fs != nil && !own {
			b.add(0, x.device(x.fs.device))
		}
	}
}

func blkioUsage(x *subject, b *builder) {
	if x.details == nil {
		return
	}
	b.sampledAt(x.details.at)
	for _, d := range x.details.io {
		major, minor := strconv.FormatUint(uint64(d.device.major), 10), strconv.FormatUint(uint64(d.device.minor), 10)
		b.add(d.readBytes, x.device(d.device), major, minor, "Read")
		b.add(d.writeBytes, x.device(d.device), major, minor, "Write")
	}
}

func perInterface(get func(*netInterface) uint64) func(*subject, *builder) {
	return func(x *subject, b *builder) {
		for i := range x.net {
			b.add(get(&x.net[i]), x.net[i].name)
		}
	}
}
