// Package errkind names the few kinds of failure that a caller of Gantry can
// act on. The package that knows what went wrong picks the kind; internal/server
// maps each kind to one gRPC code. An error without a kind is an internal one.
package errkind

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// Kind is what a caller can do about an error.
type Kind int

// The kinds. Other (the zero value) is a failure of Gantry or of the node itself.
const (
	Other        Kind = iota
	NotFound          // the object named in the request does not exist
	Invalid           // the request can never succeed as it is
	Exists            // another object has the same identity
	Precondition      // the object is in a state that does not allow this
	Unavailable       // something outside (a registry, a plugin) does not answer now
	Denied            // a policy or a credential does not allow it
	Exhausted         // a disk, a limit or a quota is full
	Timeout           // it took longer than allowed
	Unsupported       // this node or runtime can't do it
)

type kinded struct {
	kind Kind
	err  error
}

func (e *kinded) Error() string { return e.err.Error() }
func (e *kinded) Unwrap() error { return e.err }

// Errorf is fmt.Errorf with a kind: wrapping with %w works as usual.
func Errorf(kind Kind, format string, args ...any) error {
	return &kinded{kind, fmt.Errorf(format, args...)}
}

// Wrap gives err a kind without changing its text. Wrap of nil is nil.
func Wrap(kind Kind, err error) error {
	if err == nil {
		return nil
	}
	return &kinded{kind, err}
}

// Full reports whether err comes of a disk, or a quota on it, that is full.
func Full(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}

// SaysFull reports whether a program's own words tell of a full disk, or quota:
// a runtime's or a plugin's, of which there is no errno.
func SaysFull(words string) bool {
	for _, errno := range []unix.Errno{unix.ENOSPC, unix.EDQUOT} {
		if strings.Contains(strings.ToLower(words), errno.Error()) {
			return true
		}
	}
	return false
}

// FullOr is Exhausted for an error that comes of a full disk, else kind.
func FullOr(kind Kind, err error) Kind {
	if Full(err) {
		return Exhausted
	}
	return kind
}

// Of returns the kind of the outermost error of err's tree that has one, and
// Other where none has.
func Of(err error) Kind {
	var k *kinded
	if errors.As(err, &k) {
		return k.kind
	}
	return Other
}
