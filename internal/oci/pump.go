package oci

import (
	"errors"
	"io"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// reopenPause is how long a terminal that nobody has open is left alone before
// the next look.
const reopenPause = 10 * time.Millisecond

// pump copies what a process writes into a pipe or a terminal to a client, at
// the client's pace. It ends at the end of the output, when the client takes
// no more, when r is closed, or, once the process has ended, when nothing has
// come for drainGrace: then a process in the background holds the pipe open.
// A terminal that nobody has open for a moment is not at its end before.
type pump struct {
	r     *os.File
	w     io.Writer // nil drops the output
	ended atomic.Bool
	done  chan struct{} // closed when run has returned
}

func newPump(r *os.File, w io.Writer) *pump {
	return &pump{r: r, w: w, done: make(chan struct{})}
}

func (p *pump) run() {
	defer close(p.done)
	buf := make([]byte, 64<<10)
	for {
		if p.ended.Load() {
			p.r.SetReadDeadline(time.Now().Add(drainGrace)) //nolint:errcheck // fails only where reading does
		}
		n, err := p.r.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			n, err = p.readNow(buf)
		}
		if n > 0 && p.w != nil {
			if _, err := p.w.Write(buf[:n]); err != nil {
				return
			}
		}
		if errors.Is(err, unix.EIO) && !p.ended.Load() {
			time.Sleep(reopenPause)
			continue
		}
		if err != nil || n == 0 {
			return
		}
	}
}

// readNow reads what is there without waiting. Read looks at its deadline
// first, so that on a busy node what came in time could be missed.
func (p *pump) readNow(buf []byte) (n int, err error) {
	if err := p.r.SetReadDeadline(time.Time{}); err != nil {
		return 0, err
	}
	raw, err := p.r.SyscallConn()
	if err != nil {
		return 0, err
	}
	var readErr error
	err = raw.Read(func(fd uintptr) bool {
		n, readErr = unix.Read(int(fd), buf)
		return true
	})
	return max(n, 0), errors.Join(err, readErr)
}

// processEnded says that no more output is to be expected.
func (p *pump) processEnded() {
	p.ended.Store(true)
	p.r.SetReadDeadline(time.Now().Add(drainGrace)) //nolint:errcheck // fails only where reading does
}
