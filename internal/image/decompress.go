package image

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"go.podman.io/storage/pkg/archive"
)

// maxZstdWindow bounds the memory that a zstd layer can ask for. Encoders
// use 8 MiB unless told to look farther back.
const maxZstdWindow = 128 << 20

var (
	gzipMagic = []byte{0x1f, 0x8b}
	zstdMagic = []byte{0x28, 0xb5, 0x2f, 0xfd}
)

// decompress finds out how r is compressed, by its first bytes: registries'
// media types are wrong too often. The reader that it returns ends with r.
func decompress(r io.Reader) (_ io.ReadCloser, _ archive.Compression, err error) {
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
		plain, err := zstd.NewReader(buffered, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxZstdWindow))
		if err != nil {
			return nil, 0, fmt.Errorf("zstd: %w", err)
		}
		return closer{plain, plain.Close}, archive.Zstd, nil
	}
	return io.NopCloser(buffered), archive.Uncompressed, nil
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
