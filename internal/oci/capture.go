package oci

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// capture keeps the first max bytes that arrive in a pipe, and drains the rest.
type capture struct {
	r         *os.File
	name      string // as the links of /proc/PID/fd show it
	max       int
	done      chan struct{} // closed when nothing more is read
	buf       []byte        // read only after done is closed, as truncated is
	truncated bool
}

const chunkSize = 32 << 10

// chunks lends buffers for the time of reading: most outputs are much smaller.
var chunks = sync.Pool{New: func() any { return new([chunkSize]byte) }}

// newCapture makes a pipe. The second result is its writing end, for a
// process that is started with it; the caller closes it. Then either read and
// finish are called, or c.r is closed.
func newCapture(max int) (*capture, *os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	name, err := pipeName(r)
	if err != nil {
		return nil, nil, errors.Join(err, r.Close(), w.Close())
	}
	return &capture{r: r, name: name, max: max, done: make(chan struct{})}, w, nil
}

// pipeName is a pipe as the links of /proc/PID/fd show both of its ends.
func pipeName(f *os.File) (string, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return "", fmt.Errorf("stat of a pipe: %w", err)
	}
	var st unix.Stat_t
	var statErr error
	err = raw.Control(func(fd uintptr) { statErr = unix.Fstat(int(fd), &st) })
	if err = errors.Join(err, statErr); err != nil {
		return "", fmt.Errorf("stat of a pipe: %w", err)
	}
	return fmt.Sprintf("pipe:[%d]", st.Ino), nil
}

// read reads until the end of the output, or until finish stops it.
func (c *capture) read() {
	defer close(c.done)
	chunk := chunks.Get().(*[chunkSize]byte)
	defer chunks.Put(chunk)
	for {
		n, err := c.r.Read(chunk[:])
		c.keep(chunk[:n])
		if err != nil {
			return
		}
	}
}

func (c *capture) keep(p []byte) {
	room := c.max - len(c.buf)
	if len(p) > room {
		p, c.truncated = p[:room], true
	}
	c.buf = append(c.buf, p...)
}

// finish waits at most grace for the end of the output, takes what is still
// in the pipe, and closes it.
func (c *capture) finish(grace time.Duration) {
	_ = c.r.SetReadDeadline(time.Now().Add(grace)) // fails only on a pipe that is closed
	<-c.done
	_ = c.r.SetReadDeadline(time.Time{})
	c.drain()
	_ = c.r.Close() // opened for reading only
}

// drain reads what the pipe holds at this moment, without waiting.
func (c *capture) drain() {
	raw, err := c.r.SyscallConn()
	if err != nil {
		return
	}
	chunk := chunks.Get().(*[chunkSize]byte)
	defer chunks.Put(chunk)
	for total := 0; total < 1<<20; { // the largest pipe of an unprivileged process
		n := 0
		err := raw.Read(func(fd uintptr) bool {
			n, _ = unix.Read(int(fd), chunk[:])
			return true
		})
		if err != nil || n <= 0 {
			return
		}
		c.keep(chunk[:n])
		total += n
	}
}

// bytes is what was kept, at most max bytes. If there was more, it ends with
// a line that says so.
func (c *capture) bytes() []byte {
	if !c.truncated {
		return c.buf
	}
	return withNotice(c.buf, c.max)
}

// CutOutput returns the first bytes of an output that is longer than max, with
// a line that says so as the last of max bytes. It may change output.
func CutOutput(output []byte, max int) []byte {
	return withNotice(output[:max], max)
}

// withNotice ends an output of max bytes with the line that it was cut.
func withNotice(output []byte, max int) []byte {
	notice := fmt.Sprintf("\n[gantry: output cut, only the first %d bytes are kept]\n", max)
	if len(notice) >= max {
		return output
	}
	return append(output[:max-len(notice)], notice...)
}
