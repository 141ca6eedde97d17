package stats

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-cri/gantry/internal/node"
)

// errAbsent is the error of a file that this node, or this cgroup, does not have.
var errAbsent = errors.New("the kernel does not tell")

// group is what is kept of one cgroup between requests: its hot files, open,
// because opening a file costs three times what reading it does; the last
// points of its CPU usage; and what was sampled last.
type group struct {
	path    string
	details atomic.Pointer[details] // nil before the first sample
	told    atomic.Pointer[told]    // of a container in a sandbox; nil before the first answer

	mu     sync.Mutex // guards the fields below; held over reads of the kernel's memory only
	files  [hotFiles]int
	net    int  // of a pause container's cgroup: the directory /proc/PID/net; 0 is not open
	closed bool // nothing is kept open any more
	rate   rate
	// Of a pause container's cgroup, whose sandbox is asked:
	asking      bool
	silentUntil time.Time // it is not to be asked before
}

// close closes what is open. Reads still work, at the price of opening.
func (g *group) close(fds *descriptorBudget) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	g.dropLocked(fds)
}

func (g *group) dropLocked(fds *descriptorBudget) {
	for i, fd := range g.files {
		if fd != 0 {
			unix.Close(fd) //nolint:errcheck // opened for reading only
			fds.give()
			g.files[i] = 0
		}
	}
	if g.net != 0 {
		unix.Close(g.net) //nolint:errcheck // opened for looking up only
		fds.give()
		g.net = 0
	}
}

// readLocked reads one of g's files into buf, which grows as needed; the result
// is valid until the next read. g.mu is held if f is hot. errAbsent where the
// node or the cgroup has no such file, or no such cgroup any more.
func (c *Collector) readLocked(g *group, f file, buf *[]byte) ([]byte, error) {
	if c.sources[f].name == "" {
		return nil, errAbsent
	}
	if f >= hotFiles {
		return readFile(c.sources[f].file(g.path), buf)
	}
	if fd := g.files[f]; fd != 0 {
		text, err := readAll(fd, buf)
		if err == nil {
			return text, nil
		}
		g.dropLocked(&c.fds) // the cgroup is gone
		return nil, errAbsent
	}
	fd, err := open(c.sources[f].file(g.path))
	if err != nil {
		return nil, err
	}
	text, err := readAll(fd, buf)
	if err == nil && !g.closed && fd != 0 && c.fds.take() {
		g.files[f] = fd
	} else {
		unix.Close(fd) //nolint:errcheck // opened for reading only
	}
	return text, err
}

func readFile(path string, buf *[]byte) ([]byte, error) {
	return readFileAt(unix.AT_FDCWD, path, buf)
}

func readFileAt(dir int, path string, buf *[]byte) ([]byte, error) {
	fd, err := openAt(dir, path)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	return readAll(fd, buf)
}

func open(path string) (int, error) { return openAt(unix.AT_FDCWD, path) }

func openAt(dir int, path string) (int, error) {
	for {
		fd, err := unix.Openat(dir, path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == unix.EINTR {
			continue
		}
		return fd, absent(err)
	}
}

// readAll reads a kernel file from its start. A short read is the end for what
// is shown in one piece, but not for a list, so that it reads on until nothing
// comes, unless there was room for much more than came.
func readAll(fd int, buf *[]byte) ([]byte, error) {
	if cap(*buf) == 0 {
		*buf = make([]byte, 8<<10)
	}
	b := *buf
	for n := 0; ; {
		got, err := unix.Pread(fd, b[n:], int64(n))
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return nil, absent(err)
		case got == 0, n == 0 && got < onePiece:
			return b[:n+got], nil
		}
		if n += got; n == len(b) {
			b = append(b, make([]byte, len(b))...)
			*buf = b
		}
	}
}

// onePiece is the least that the kernel fills of a larger buffer when it has
// more to tell: its lists come in pages.
const onePiece = 3 << 10

// absent gives the errors of a cgroup or a process that has gone one name.
func absent(err error) error {
	switch err {
	case unix.ENOENT, unix.ENODEV, unix.ESRCH, unix.ENOTDIR, unix.EOPNOTSUPP:
		return errAbsent
	}
	return err
}

// descriptorBudget bounds the files that are kept open.
type descriptorBudget struct {
	max  int64
	used atomic.Int64
}

// Each kept file costs a descriptor, and the kernel a page. A pod of one
// container has 16.
const keptFilesMax = 8192

func newDescriptorBudget(facts node.Facts) descriptorBudget {
	most := uint64(keptFilesMax)
	if l, ok := facts.Rlimits["RLIMIT_NOFILE"]; ok {
		most = min(most, l.Soft/4)
	}
	return descriptorBudget{max: int64(most)}
}

func (b *descriptorBudget) take() bool {
	if b.used.Add(1) > b.max {
		b.used.Add(-1)
		return false
	}
	return true
}

func (b *descriptorBudget) give() { b.used.Add(-1) }
