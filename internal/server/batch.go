package server

import (
	"iter"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// batchMax bounds a batch whatever the limit of a message is, in bytes: a
// client that never changed its own limit takes 4 MiB, and neither side should
// hold more than it needs at a time.
const batchMax = 1 << 20

// batchSize is how many bytes of items go into one message of a streaming
// list: far below what a message may have.
func (s *Server) batchSize() int { return min(s.opts.MaxMessageSize/4, batchMax) }

// sendBatches sends items in their order, each once, in lists of at least one
// and at most size bytes of encoded items. An item that is larger by itself is
// sent alone. Without items nothing is sent. The lists are send's to keep.
func sendBatches[T proto.Message](items iter.Seq[T], size int, send func([]T) error) error {
	var batch []T
	used := 0
	for item := range items {
		n := protowire.SizeTag(1) + protowire.SizeBytes(proto.Size(item)) // as an element of a repeated field
		if len(batch) > 0 && used+n > size {
			if err := send(batch); err != nil {
				return err
			}
			batch, used = nil, 0
		}
		batch, used = append(batch, item), used+n
	}
	if len(batch) == 0 {
		return nil
	}
	return send(batch)
}

// each is what f makes of the items, one at a time.
func each[A, B any](items []A, f func(A) B) iter.Seq[B] {
	return func(yield func(B) bool) {
		for _, item := range items {
			if !yield(f(item)) {
				return
			}
		}
	}
}
