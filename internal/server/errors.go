package server

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	crierrors "k8s.io/cri-api/pkg/errors"

	"github.com/gantry-cri/gantry/internal/errkind"
	"github.com/gantry-cri/gantry/internal/image"
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

// pullError is the error of PullImage as the kubelet reads it. What is in
// k8s.io/cri-api/pkg/errors it knows by the beginning of the message, and only
// where the code is Unknown: its client takes that code off and leaves others.
func pullError(err error) error {
	switch {
	case errors.Is(err, image.ErrPolicy):
		return status.Errorf(codes.Unknown, "%s: %s", crierrors.ErrSignatureValidationFailed, err)
	case errkind.Of(err) == errkind.Unavailable:
		return status.Errorf(codes.Unknown, "%s: %s", crierrors.ErrRegistryUnavailable, err)
	}
	return err
}

// signatureError says the same of a stored image, by the code that others have.
func signatureError(err error) error {
	if errors.Is(err, image.ErrPolicy) {
		return fmt.Errorf("%w: %w", crierrors.ErrSignatureValidationFailed, err)
	}
	return err
}
