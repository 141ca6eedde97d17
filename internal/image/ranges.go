package image

import (
	"context"
	"errors"
	"io"
	"math"
	"reflect"

	"go.podman.io/image/v5/types"
)

// errNoRanges says that a source, or its registry, has no parts of blobs.
var errNoRanges = errors.New("no parts of blobs to be had")

// openRest asks for a blob from an offset to its end. The library's method for
// that is not in an interface that others may name, since the type of one
// parameter is not (a slice of structures of offset and length), so it is
// found by its name and shape.
func openRest(ctx context.Context, src types.ImageSource, info types.BlobInfo, offset int64) (io.ReadCloser, error) {
	method := reflect.ValueOf(src).MethodByName("GetBlobAt")
	if !method.IsValid() || method.Type().NumIn() != 3 || method.Type().NumOut() != 3 || method.Type().In(2).Kind() != reflect.Slice {
		return nil, errNoRanges
	}
	chunks := reflect.MakeSlice(method.Type().In(2), 1, 1)
	for name, value := range map[string]uint64{"Offset": uint64(offset), "Length": math.MaxUint64} { // all the rest
		field := reflect.Indirect(chunks.Index(0)).FieldByName(name)
		if !field.IsValid() || field.Kind() != reflect.Uint64 {
			return nil, errNoRanges
		}
		field.SetUint(value)
	}
	out := method.Call([]reflect.Value{reflect.ValueOf(ctx), reflect.ValueOf(info), chunks})
	if err, _ := out[2].Interface().(error); err != nil {
		return nil, err
	}
	streams, isStreams := out[0].Interface().(chan io.ReadCloser)
	errs, isErrs := out[1].Interface().(chan error)
	if !isStreams || !isErrs {
		return nil, errNoRanges
	}
	select {
	case body, ok := <-streams:
		if ok {
			return body, nil
		}
		return nil, errors.Join(errNoRanges, <-errs)
	case err := <-errs:
		return nil, errors.Join(errNoRanges, err)
	case <-ctx.Done():
		go abandon(streams, errs)
		return nil, context.Cause(ctx)
	}
}

// abandon lets the library's goroutine end.
func abandon(streams chan io.ReadCloser, errs chan error) {
	for body := range streams {
		_ = body.Close() // it was not read
	}
	for range errs {
	}
}
