package monitor

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gantry-cri/gantry/internal/errkind"
)

// ErrExited says that a container's process is gone.
var ErrExited = errors.New("the container has exited")

// ErrDisconnected says that the connection to the monitor ended before it
// answered. What was asked for may have happened.
var ErrDisconnected = errors.New("the connection to the monitor is lost")

// CreateError says how RUNTIME create failed. Nothing of the container is left
// with the monitor; what the runtime keeps of it is for the caller to delete.
type CreateError struct {
	Reason     string // in the monitor's words
	ExitStatus int    // of the runtime; 125 with Output from the monitor if it could not be run
	Signal     int    // that ended the runtime, 0 if none
	TimedOut   bool   // it was killed at the request's timeout
	Output     string // the end of its stderr, at most 4 KiB
}

func (e *CreateError) Error() string {
	how := fmt.Sprintf("exit status %d", e.ExitStatus)
	if e.Signal != 0 {
		how = "signal " + unix.SignalName(unix.Signal(e.Signal))
	}
	words := strings.TrimSpace(e.Output)
	if words == "" {
		return fmt.Sprintf("%s (%s)", e.Reason, how)
	}
	return fmt.Sprintf("%s (%s): %s", e.Reason, how, words)
}

// Is makes what the runtime says of a full disk unix.ENOSPC.
func (e *CreateError) Is(target error) bool {
	return target == unix.ENOSPC && errkind.SaysFull(e.Output)
}

// remoteError is what the monitor answers when it refuses a request.
type remoteError struct {
	errno unix.Errno
	words string
}

func (e *remoteError) Error() string {
	if e.words == "" {
		return e.errno.Error()
	}
	return e.words
}

func (e *remoteError) Unwrap() error { return e.errno }

// kind is what a caller can do about an errno of the protocol.
func kind(errno unix.Errno) errkind.Kind {
	switch errno {
	case unix.ENXIO:
		return errkind.NotFound
	case unix.EINVAL, unix.EBADMSG, unix.E2BIG, unix.ENAMETOOLONG:
		return errkind.Invalid
	case unix.EBUSY, unix.ESRCH, unix.ENOTTY:
		return errkind.Precondition
	case unix.ENOSPC, unix.EDQUOT, unix.EMFILE, unix.ENFILE, unix.ENOMEM:
		return errkind.Exhausted
	case unix.ETIMEDOUT:
		return errkind.Timeout
	case unix.ENOSYS, unix.ENOTSUP, unix.EPROTONOSUPPORT:
		return errkind.Unsupported
	}
	return errkind.Other
}

// replyError returns the error that a reply carries, or nil.
func replyError(fields []byte) error {
	var (
		remote  remoteError
		create  CreateError
		runtime bool
	)
	for f := range fieldsOf(fields) {
		switch f.tag {
		case gmTagErrno:
			remote.errno = unix.Errno(f.number())
		case gmTagError:
			remote.words = f.text()
		case gmTagExitStatus:
			create.ExitStatus, runtime = int(f.number()), true
		case gmTagSignal:
			create.Signal, runtime = int(f.number()), true
		case gmTagOutput:
			create.Output = string(f.data)
		}
	}
	if remote.errno == 0 {
		return nil
	}
	if !runtime {
		return errkind.Wrap(kind(remote.errno), &remote)
	}
	create.Reason = remote.words
	create.TimedOut = remote.errno == unix.ETIMEDOUT
	return errkind.Wrap(kind(remote.errno), &create)
}
