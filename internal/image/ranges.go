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

// byteRange is a part of a blob.
type byteRange struct {
	offset, length int64
}

// toEnd is the length of a range that has no other end than its blob.
const toEnd = math.MaxInt64

// parts are ranges of a blob on their way, in order.
type parts struct {
	ctx     context.Context
	streams chan io.ReadCloser
	errs    chan error
}

// openParts asks for ranges of a blob, sorted and apart, with one request. The
// library's method for that is not in an interface that others may name, since
// the type of one parameter is not (a slice of structures of offset and
// length), so it is found by its name and shape.
func openParts(ctx context.Context, src types.ImageSource, info types.BlobInfo, ranges []byteRange) (*parts, error) {
	method := reflect.ValueOf(src).MethodByName("GetBlobAt")
	if !method.IsValid() || method.Type().NumIn() != 3 || method.Type().NumOut() != 3 || method.Type().In(2).Kind() != reflect.Slice {
		return nil, errNoRanges
	}
	chunks := reflect.MakeSlice(method.Type().In(2), len(ranges), len(ranges))
	for i, r := range ranges {
		length := uint64(r.length)
		if r.length == toEnd {
			length = math.MaxUint64
		}
		for name, value := range map[string]uint64{"Offset": uint64(r.offset), "Length": length} {
			field := reflect.Indirect(chunks.Index(i)).FieldByName(name)
			if !field.IsValid() || field.Kind() != reflect.Uint64 {
				return nil, errNoRanges
			}
			field.SetUint(value)
		}
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
	return &parts{ctx, streams, errs}, nil
}

// next is the next range. It must be read and closed before the one after it.
func (p *parts) next() (io.ReadCloser, error) {
	for {
		select {
		case body, ok := <-p.streams:
			if ok {
				return body, nil
			}
			p.streams = nil
		case err, ok := <-p.errs:
			if ok {
				return nil, err
			}
			p.errs = nil
		case <-p.ctx.Done():
			return nil, context.Cause(p.ctx)
		}
		if p.streams == nil && p.errs == nil {
			return nil, errNoRanges
		}
	}
}

// close lets the library's goroutine end, whatever it has still to hand out.
func (p *parts) close() {
	streams, errs := p.streams, p.errs
	go func() {
		for streams != nil || errs != nil {
			select {
			case body, ok := <-streams:
				if !ok {
					streams = nil
				} else {
					_ = body.Close() // it was not read
				}
			case _, ok := <-errs:
				if !ok {
					errs = nil
				}
			}
		}
	}()
}

// partBody is the only part of a request.
type partBody struct {
	io.ReadCloser
	of *parts
}

func (b partBody) Close() error {
	err := b.ReadCloser.Close()
	b.of.close()
	return err
}

// openRange asks for one range of a blob.
func openRange(ctx context.Context, src types.ImageSource, info types.BlobInfo, r byteRange) (io.ReadCloser, error) {
	p, err := openParts(ctx, src, info, []byteRange{r})
	if err != nil {
		return nil, err
	}
	body, err := p.next()
	if err != nil {
		p.close()
		return nil, err
	}
	return partBody{body, p}, nil
}
