package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-cri/gantry/internal/errkind"
)

// A Change sets limits of one cgroup. It remembers what they were, so that it
// can be taken back, also by another process that reads it from a record.
type Change []Write

// Write is one file of a cgroup and what is written to it.
type Write struct {
	File string `json:"file"` // absolute
	Old  string `json:"old"`
	New  string `json:"new"`
}

// Apply makes the change. After an error nothing is changed, unless the error
// says that taking it back failed too. Its kind is Precondition where the
// cgroup, its parent or what it uses now does not allow the limit, and Invalid
// where a value makes no sense to the kernel.
func (c Change) Apply() error {
	for i, w := range c {
		if err := w.apply(); err != nil {
			return errors.Join(err, c[:i].Undo())
		}
	}
	return nil
}

// Undo writes what was there before, in the reverse order: each step leads to
// a state that was there. It may be called for a change of which only a part,
// or nothing, was applied.
func (c Change) Undo() error {
	var errs []error
	for _, w := range slices.Backward(c) {
		if err := w.undo(); err != nil {
			errs = append(errs, fmt.Errorf("take back: %w", err))
		}
	}
	return errors.Join(errs...)
}

// apply writes the new content. The newline makes "", too, one write.
func (w Write) apply() error {
	if filepath.Base(w.File) == "memory.max" {
		if err := makeRoom(w.File, w.New); err != nil {
			return err
		}
	}
	return explain(w.File, w.New, write(w.File, w.New+"\n"))
}

// undo writes the old content line by line, as such files take it.
func (w Write) undo() error {
	for line := range strings.SplitSeq(w.Old, "\n") {
		if err := write(w.File, line+"\n"); err != nil && !gone(err) {
			return explain(w.File, line, err)
		}
	}
	return nil
}

// write writes text to a file of a cgroup, which is there. It does not go by
// os.File, which takes the EAGAIN of such a file (memory.reclaim has no more to
// give) for a reason to wait until it can be written to, for ever.
func write(file, text string) error {
	fd, err := unix.Open(file, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: file, Err: err}
	}
	for {
		_, err = unix.Write(fd, []byte(text))
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		err = &fs.PathError{Op: "write", Path: file, Err: err}
	}
	return errors.Join(err, unix.Close(fd))
}

// makeRoom refuses a limit of memory below what the cgroup uses: version 2
// takes any limit, and kills until it is met. What can be reclaimed is first.
func makeRoom(file, limit string) error {
	dir := filepath.Dir(file)
	used := func() (uint64, error) {
		text, err := os.ReadFile(filepath.Join(dir, "memory.current"))
		if err != nil {
			return 0, explainMissing(filepath.Join(dir, "memory.current"), err)
		}
		return strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	}
	want := bytesOf(limit)
	n, err := used()
	if err != nil || n <= want {
		return err
	}
	if n, err = reclaim(filepath.Join(dir, "memory.reclaim"), n, want, used); err != nil || n <= want {
		return err
	}
	return errkind.Errorf(errkind.Precondition, "%s: %s is below the %d bytes that are in use", filepath.Base(file), limit, n)
}

// Bounds on the reclaim of memory. The kernel goes on for as long as it gets
// something, which a container that needs its pages may bring back at once.
const (
	reclaimStep = 1 << 20 // bytes
	reclaimTime = 2 * time.Second
	reclaimVain = 8 // steps after which less than half of one was gained
)

// reclaim has the kernel reclaim memory of a cgroup that uses n bytes until it
// uses no more than want, or nothing more is gained. It returns what is used then.
func reclaim(file string, n, want uint64, used func() (uint64, error)) (uint64, error) {
	vain := 0
	for end := time.Now().Add(reclaimTime); n > want && vain < reclaimVain && time.Now().Before(end); {
		err := write(file, strconv.FormatUint(min(n-want, reclaimStep), 10))
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, fs.ErrNotExist) { // nothing is left to reclaim; an old kernel
			return used()
		}
		if err != nil {
			return n, err
		}
		now, err := used()
		if err != nil {
			return n, err
		}
		if now+reclaimStep/2 > n {
			vain++
		}
		n = now
	}
	return n, nil
}

// explain says what the kernel's refusal of a value means.
func explain(file, value string, err error) error {
	name := filepath.Base(file)
	switch {
	case err == nil:
		return nil
	case gone(err):
		return explainMissing(file, err)
	case errors.Is(err, unix.EBUSY) && strings.HasSuffix(name, "limit_in_bytes"):
		used, readErr := os.ReadFile(strings.TrimSuffix(file, "limit_in_bytes") + "usage_in_bytes")
		return errkind.Errorf(errkind.Precondition, "%s: %s is below the %s bytes that are in use: %w",
			name, value, strings.TrimSpace(string(used)), errors.Join(err, readErr))
	case errors.Is(err, unix.EBUSY), errors.Is(err, unix.EACCES), errors.Is(err, unix.ENOSPC):
		return errkind.Errorf(errkind.Precondition, "%s: the cgroup's state does not allow %q: %w", name, value, err)
	case errors.Is(err, unix.EINVAL) && (strings.HasPrefix(name, "cpu.cfs_") || strings.HasPrefix(name, "cpuset.")):
		return errkind.Errorf(errkind.Precondition, "%s: %q is not within what the parent cgroup has (%s), or leaves less than a child has: %w",
			name, value, parentValue(file), err)
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ERANGE):
		return errkind.Errorf(errkind.Invalid, "%s: the kernel does not take %q: %w", name, value, err)
	}
	return fmt.Errorf("%s: write %q: %w", name, value, err)
}

// parentValue is what the same file of the parent cgroup says.
func parentValue(file string) string {
	text, err := os.ReadFile(filepath.Join(filepath.Dir(filepath.Dir(file)), filepath.Base(file)))
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(text))
}

// explainMissing tells a cgroup that is gone from one that lacks a file.
func explainMissing(file string, err error) error {
	switch {
	case !gone(err):
		return err
	case exists(filepath.Dir(file)):
		return errkind.Errorf(errkind.Invalid, "there is no %s: %w", filepath.Base(file), err)
	}
	return errkind.Errorf(errkind.Precondition, "the cgroup does not exist any more: %w", err)
}
