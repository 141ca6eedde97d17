package image

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"go.podman.io/storage/pkg/archive"
)

// How much memory a zstd layer can ask for. Encoders look back 8 MiB, unless
// told to look farther; of such layers one at a time is unpacked.
const (
	zstdWindow     = 8 << 20
	zstdWideWindow = 128 << 20
)

var (
	gzipMagic = []byte{0x1f, 0x8b}
	zstdMagic = []byte{0x28, 0xb5, 0x2f, 0xfd}
)

// decompressor has what the decompression of several layers shares.
type decompressor struct {
	wide chan struct{} // holds one for the layer that looks far back
}

func newDecompressor() decompressor { return decompressor{make(chan struct{}, 1)} }

// open finds out how r is compressed, by its first bytes: registries' media
// types are wrong too often. The reader that it returns ends with r.
func (d decompressor) open(ctx context.Context, r io.Reader) (_ io.ReadCloser, _ archive.Compression, err error) {
	buffered := bufio.NewReaderSize(r, 64<<10)
	head, err := buffered.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, 0, err
	}
	switch {
	case bytes.HasPrefix(head, gzipMagic):
		plain, err := gzip.NewReader(buffered)
		if err != nil {
			return nil, 0, fmt.Errorf("gzip: %w", err)
		}
		return plain, archive.Gzip, nil
	case bytes.HasPrefix(head, zstdMagic), skippableFrame(head):
		plain, err := d.zstd(ctx, buffered)
		return plain, archive.Zstd, err
	}
	return io.NopCloser(buffered), archive.Uncompressed, nil
}

func (d decompressor) zstd(ctx context.Context, r *bufio.Reader) (io.ReadCloser, error) {
	window, release := uint64(zstdWindow), func() {}
	if looksFarBack(r) {
		select {
		case d.wide <- struct{}{}:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		window, release = zstdWideWindow, func() { <-d.wide }
	}
	plain, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(window))
	if err != nil {
		release()
		return nil, fmt.Errorf("zstd: %w", err)
	}
	return closer{plain, func() {
		plain.Close()
		release()
	}}, nil
}

// looksFarBack tells whether a zstd stream wants more memory than most, or
// may: its first frame does not say.
func looksFarBack(r *bufio.Reader) bool {
	head, _ := r.Peek(zstd.HeaderMaxSize) // the decoder tells what is wrong with a short one
	var h zstd.Header
	if err := h.Decode(head); err != nil || h.Skippable {
		return true
	}
	return h.WindowSize > zstdWindow || h.SingleSegment && h.FrameContentSize > zstdWindow
}

// skippableFrame is a zstd frame without content, which may come first.
func skippableFrame(head []byte) bool {
	return len(head) == 4 && head[0]&0xf0 == 0x50 && bytes.Equal(head[1:], []byte{0x2a, 0x4d, 0x18})
}

// closer gives a reader the Close that ends it.
type closer struct {
	io.Reader
	close func()
}

func (c closer) Close() error {
	c.close()
	return nil
}
