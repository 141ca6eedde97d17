package server

import "google.golang.org/protobuf/proto"

// batchMax is the most bytes of one message of a stream, where the limit allows
// it: clients often take no more than 4 MiB.
const batchMax = 2 << 20

// sendBatched sends items in order, as many at a time as surely fit into a
// message of limit bytes; each batch has at least one. No items are no message.
func sendBatched[T proto.Message](limit int, items []T, send func([]T) error) error {
	limit = min(limit/2, batchMax)
	for start := 0; start < len(items); {
		size, end := 0, start
		for end < len(items) {
			// An item in a list costs its size, a tag and the length.
			if size += proto.Size(items[end]) + 11; size > limit && end > start {
				break
			}
			end++
		}
		if err := send(items[start:end]); err != nil {
			return err
		}
		start = end
	}
	return nil
}
