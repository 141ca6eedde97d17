package stats

import (
	"sync"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// Numbers of fields of the CRI's messages. A test decodes what is made of them.
const (
	metricsField          = 2 // of PodSandboxMetrics and of ContainerMetrics
	containerMetricsField = 3 // of PodSandboxMetrics
	containerIDField      = 1 // of ContainerMetrics

	nameField      = 1 // of Metric
	timestampField = 2
	kindField      = 3
	labelField     = 4
	valueField     = 5

	numberField = 1 // of UInt64Value
)

// entry is a family with what all its metrics begin with, name and kind, encoded.
type entry struct {
	family
	head []byte
}

var entries = sync.OnceValue(func() []entry {
	var all []entry
	for _, f := range families() {
		head := appendString(nil, nameField, f.name)
		head = protowire.AppendTag(head, kindField, protowire.VarintType)
		all = append(all, entry{f, protowire.AppendVarint(head, uint64(f.kind))})
	}
	return all
})

// builder encodes the metrics of one subject, as fields of the message that
// holds them.
type builder struct {
	common []byte    // values of commonLabels, encoded
	read   time.Time // when all was read but for samples; zero is now, which is not told
	now    *entry
	at     time.Time // of the values that follow
	out    []byte
}

func (b *builder) build(x *subject, of scope) {
	all := entries()
	for i := range all {
		if e := &all[i]; e.of&of != 0 {
			b.now, b.at = e, b.read
			e.values(x, b)
		}
	}
}

// sampledAt says when the values that follow were sampled; zero is when all else
// was read.
func (b *builder) sampledAt(at time.Time) {
	if at.IsZero() {
		at = b.read
	}
	b.at = at
}

// add tells a value, with the values of the family's own labels.
func (b *builder) add(n uint64, labels ...string) {
	size := len(b.now.head) + len(b.common)
	stamp := uint64(0)
	if !b.at.IsZero() {
		stamp = uint64(b.at.UnixNano())
		size += protowire.SizeTag(timestampField) + protowire.SizeVarint(stamp)
	}
	for _, l := range labels {
		size += protowire.SizeTag(labelField) + protowire.SizeBytes(len(l))
	}
	value := protowire.SizeTag(numberField) + protowire.SizeVarint(n)
	size += protowire.SizeTag(valueField) + protowire.SizeBytes(value)

	out := protowire.AppendTag(b.out, metricsField, protowire.BytesType)
	out = protowire.AppendVarint(out, uint64(size))
	out = append(out, b.now.head...)
	if stamp != 0 {
		out = protowire.AppendTag(out, timestampField, protowire.VarintType)
		out = protowire.AppendVarint(out, stamp)
	}
	out = append(out, b.common...)
	out = labelValues(out, labels...)
	out = protowire.AppendTag(out, valueField, protowire.BytesType)
	out = protowire.AppendVarint(out, uint64(value))
	out = protowire.AppendTag(out, numberField, protowire.VarintType)
	b.out = protowire.AppendVarint(out, n)
}

// labelValues appends encoded values of labels.
func labelValues(to []byte, values ...string) []byte {
	for _, v := range values {
		to = appendString(to, labelField, v)
	}
	return to
}

func appendString(to []byte, field protowire.Number, s string) []byte {
	return protowire.AppendString(protowire.AppendTag(to, field, protowire.BytesType), s)
}

func appendBytes(to []byte, field protowire.Number, body []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(to, field, protowire.BytesType), body)
}
