package image

import (
	"io"
	"sync"
)

// Sizes of what is read ahead: large enough that handing it from one goroutine
// to the next costs nothing, small enough that a pull's memory does not depend
// on the image.
const (
	pumpChunk = 256 << 10
	pumpAhead = 4 // chunks
)

// chunkPool keeps buffers from one layer to the next.
type chunkPool struct{ pool sync.Pool }

func (c *chunkPool) get() []byte {
	if b, ok := c.pool.Get().(*[]byte); ok {
		return *b
	}
	return make([]byte, pumpChunk)
}

func (c *chunkPool) put(b []byte) {
	b = b[:cap(b)]
	c.pool.Put(&b)
}

// pump reads ahead in a goroutine of its own, so that the stages of a layer
// (network, decompression, files) work at the same time.
type pump struct {
	chunks *chunkPool
	full   chan []byte
	quit   chan struct{}
	done   chan struct{} // closed when the goroutine has ended
	err    error         // why full was closed; io.EOF at the end

	chunk, rest []byte // what Read hands out; rest is the part of chunk that is left
}

// newPump starts to read r. Close ends it, once a Read of r that is under way
// has returned: whoever closes a pump first makes that happen.
func newPump(r io.Reader, chunks *chunkPool) *pump {
	p := &pump{chunks: chunks, full: make(chan []byte, pumpAhead), quit: make(chan struct{}), done: make(chan struct{})}
	go p.run(r)
	return p
}

func (p *pump) run(r io.Reader) {
	defer close(p.done)
	defer close(p.full)
	for {
		b := p.chunks.get()
		n, err := readMost(r, b)
		if n > 0 {
			select {
			case p.full <- b[:n]:
			case <-p.quit:
				p.err = io.ErrClosedPipe
				return
			}
		} else {
			p.chunks.put(b)
		}
		if err != nil {
			p.err = err
			return
		}
	}
}

// readMost fills half of b or more, unless r ends or fails.
func readMost(r io.Reader, b []byte) (n int, err error) {
	for n < len(b)/2 && err == nil {
		var m int
		m, err = r.Read(b[n:])
		n += m
	}
	return n, err
}

// Read implements io.Reader.
func (p *pump) Read(b []byte) (int, error) {
	for len(p.rest) == 0 {
		if p.chunk != nil {
			p.chunks.put(p.chunk)
			p.chunk = nil
		}
		chunk, ok := <-p.full
		if !ok {
			return 0, p.err
		}
		p.chunk, p.rest = chunk, chunk
	}
	n := copy(b, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

// Close stops reading ahead and waits for it to end.
func (p *pump) Close() {
	close(p.quit)
	for b := range p.full {
		p.chunks.put(b)
	}
	<-p.done
}
