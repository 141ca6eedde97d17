package storage

import (
	"io"
	"sync/atomic"

	"github.com/gantry-cri/gantry/internal/errkind"
)

// Limits bound what one layer may bring. Zero fields mean the defaults.
type Limits struct {
	Bytes   int64   // unpacked, as the archive's headers say
	Entries int64   // members of the archive
	Image   *Budget // shared by the layers of an image; nil: no bound but Bytes
}

// Defaults of Limits: far above real images, far below what would fill a
// node's inodes or keep it busy for hours.
const (
	DefaultLayerBytes   = 128 << 30
	DefaultLayerEntries = 1_000_000
)

func (l Limits) withDefaults() Limits {
	if l.Bytes == 0 {
		l.Bytes = DefaultLayerBytes
	}
	if l.Entries == 0 {
		l.Entries = DefaultLayerEntries
	}
	return l
}

// Budget is what several layers may bring together. It may be used
// concurrently.
type Budget struct {
	bytes int64
	left  atomic.Int64
}

// NewBudget makes a budget of so many unpacked bytes.
func NewBudget(bytes int64) *Budget {
	b := &Budget{bytes: bytes}
	b.left.Store(bytes)
	return b
}

// take spends n bytes, which are not negative.
func (b *Budget) take(n int64) error {
	if b != nil && b.left.Add(-n) < 0 {
		return errkind.Errorf(errkind.Exhausted, "image is larger than %d bytes", b.bytes)
	}
	return nil
}

// give returns what was not used after all.
func (b *Budget) give(n int64) {
	if b != nil {
		b.left.Add(n)
	}
}

// What an archive may have beyond the content of its members: headers, with
// their extensions, and what follows its end.
const (
	maxOverhead      = 64 << 20
	overheadPerEntry = 16 << 10
)

// metered fails where an archive goes on and on without a member to count:
// compressed, such a thing is small.
type metered struct {
	r     io.Reader
	u     *unpacker
	total int64
}

func (m *metered) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	m.total += int64(n)
	if m.total-m.u.bytes > maxOverhead+overheadPerEntry*m.u.entries {
		return n, errkind.Errorf(errkind.Exhausted, "layer has more than %d bytes of headers or after its end", m.total-m.u.bytes)
	}
	return n, err
}
