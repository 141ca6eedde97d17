package image

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"reflect"

	"github.com/docker/distribution/registry/api/errcode"
	v2 "github.com/docker/distribution/registry/api/v2"
	"go.podman.io/image/v5/docker"
	"go.podman.io/image/v5/signature"
	"golang.org/x/sys/unix"

	"github.com/gantry-cri/gantry/internal/errkind"
)

// ErrPolicy is wrapped where a signature policy does not allow an image.
var ErrPolicy = errors.New("refused by the signature policy")

// refusal is the error of a policy that did not allow an image. Where a server
// of signatures can't be reached that is what is said; whatever else stands
// against an image is a refusal.
func refusal(err error) error {
	err = classify(err)
	switch errkind.Of(err) {
	case errkind.Unavailable, errkind.Timeout, errkind.Exhausted:
		return fmt.Errorf("signatures: %w", err)
	}
	if err == nil {
		return errkind.Wrap(errkind.Denied, ErrPolicy)
	}
	return errkind.Errorf(errkind.Denied, "%w: %w", ErrPolicy, err)
}

// classify gives the failure of a transfer its kind.
func classify(err error) error {
	if errkind.Of(err) != errkind.Other {
		return err
	}
	for _, kindOf := range []func(error) errkind.Kind{localKind, registryKind, statusKind, networkKind} {
		if kind := kindOf(err); kind != errkind.Other {
			return errkind.Wrap(kind, err)
		}
	}
	return err
}

// senseless says that a registry sent what nobody can read, where an error is
// neither this node's nor of a kind that is known.
func senseless(err error) error {
	var local unix.Errno
	if err == nil || errors.As(err, &local) || errkind.Of(classify(err)) != errkind.Other {
		return err
	}
	return errkind.Wrap(errkind.Invalid, err)
}

// localKind knows what this node refuses or lacks.
func localKind(err error) errkind.Kind {
	var denied signature.PolicyRequirementError
	switch {
	case errors.As(err, &denied):
		return errkind.Denied
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return errkind.Exhausted
	case errors.Is(err, context.Canceled):
		return errkind.Unavailable // the service is closing
	}
	return errkind.Other
}

// registryKind knows the error codes of the distribution API.
func registryKind(err error) errkind.Kind {
	var unauthorized docker.ErrUnauthorizedForCredentials
	if errors.As(err, &unauthorized) {
		return errkind.Denied
	}
	if errors.Is(err, docker.ErrTooManyRequests) {
		return errkind.Unavailable
	}
	var coder errcode.ErrorCoder
	if !errors.As(err, &coder) {
		return errkind.Other
	}
	switch coder.ErrorCode() {
	case errcode.ErrorCodeUnauthorized, errcode.ErrorCodeDenied:
		return errkind.Denied
	case errcode.ErrorCodeUnavailable, errcode.ErrorCodeTooManyRequests:
		return errkind.Unavailable
	case v2.ErrorCodeManifestUnknown, v2.ErrorCodeNameUnknown, v2.ErrorCodeBlobUnknown, v2.ErrorCodeManifestBlobUnknown:
		return errkind.NotFound
	case v2.ErrorCodeNameInvalid, v2.ErrorCodeTagInvalid, v2.ErrorCodeDigestInvalid:
		return errkind.Invalid
	}
	return errkind.Other
}

// statusKind goes by the HTTP status.
func statusKind(err error) errkind.Kind {
	switch status := httpStatus(err); {
	case status == http.StatusNotFound:
		return errkind.NotFound
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return errkind.Denied
	case status == http.StatusTooManyRequests, status >= 500:
		return errkind.Unavailable
	}
	return errkind.Other
}

// networkKind knows what a registry that is down looks like.
func networkKind(err error) errkind.Kind {
	var (
		request *url.Error
		op      *net.OpError
		dns     *net.DNSError
		cert    *tls.CertificateVerificationError
		timeout net.Error
	)
	switch {
	case errors.As(err, &op) && op.Op == "remote error": // crypto/tls: the registry's alert
		return errkind.Denied
	case errors.As(err, &request), errors.As(err, &op), errors.As(err, &dns), errors.As(err, &cert):
		return errkind.Unavailable
	case errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, io.ErrUnexpectedEOF):
		return errkind.Unavailable
	}
	return errkind.Other
}

// httpStatus finds the status in an error's tree, 0 if there is none. One of
// the library's two types for it is not exported, its StatusCode is.
func httpStatus(err error) int {
	if err == nil {
		return 0
	}
	v := reflect.Indirect(reflect.ValueOf(err))
	if v.Kind() == reflect.Struct {
		if status := v.FieldByName("StatusCode"); status.IsValid() && status.CanInt() {
			return int(status.Int())
		}
	}
	switch wrapper := err.(type) {
	case interface{ Unwrap() error }:
		return httpStatus(wrapper.Unwrap())
	case interface{ Unwrap() []error }:
		for _, e := range wrapper.Unwrap() {
			if status := httpStatus(e); status != 0 {
				return status
			}
		}
	}
	return 0
}
