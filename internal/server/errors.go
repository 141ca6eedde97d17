package server

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/gantry-cri/gantry/internal/errkind"
)

// toStatus gives an error the gRPC code that its kind stands for. It is the
// only place that does; an error that is a gRPC status already stays as it is.
func toStatus(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	return status.Error(codeOf(err), err.Error())
}

func codeOf(err error) codes.Code {
	switch errkind.Of(err) {
	case errkind.NotFound:
		return codes.NotFound
	case errkind.Invalid:
		return codes.InvalidArgument
	case errkind.Exists:
		return codes.AlreadyExists
	case errkind.Precondition:
		return codes.FailedPrecondition
	case errkind.Unavailable:
		return codes.Unavailable
	case errkind.Denied:
		return codes.PermissionDenied
	case errkind.Exhausted:
		return codes.ResourceExhausted
	case errkind.Unsupported:
		return codes.Unimplemented
	case errkind.Timeout:
		return timeoutCode(err)
	}
	switch {
	case errkind.Full(err):
		return codes.ResourceExhausted
	case errors.Is(err, context.Canceled):
		return codes.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		return codes.DeadlineExceeded
	}
	return codes.Internal
}

// timeoutCode tells a caller that went away from a deadline that passed.
func timeoutCode(err error) codes.Code {
	if errors.Is(err, context.Canceled) {
		return codes.Canceled
	}
	return codes.DeadlineExceeded
}
