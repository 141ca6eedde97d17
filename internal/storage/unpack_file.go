package storage

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/sys/unix"
)

// zeros is what a hole reads as.
var zeros [128 << 10]byte

// minHole is the shortest run of null bytes that is left out of a file: a
// block of most file systems.
const minHole = 4096

// write copies content to fd. Runs of null bytes become holes: an archive that
// brings little else must not fill the disk.
func (u *unpacker) write(fd int, content io.Reader) error {
	var size, written int64
	for {
		n, err := content.Read(u.buf)
		chunk := u.buf[:n]
		if n < minHole || !bytes.Equal(chunk, zeros[:n]) {
			if err := pwriteAll(fd, chunk, size); err != nil {
				return fmt.Errorf("write: %w", err)
			}
			written = size + int64(n)
		}
		size += int64(n)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return archiveError(err)
		}
	}
	if written == size {
		return nil
	}
	if err := unix.Ftruncate(fd, size); err != nil {
		return fmt.Errorf("extend to %d bytes: %w", size, err)
	}
	return nil
}

func pwriteAll(fd int, data []byte, at int64) error {
	for len(data) > 0 {
		n, err := unix.Pwrite(fd, data, at)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		data, at = data[n:], at+int64(n)
	}
	return nil
}

// largeFile is the size from which on it is worth asking whether a file fits.
const largeFile = 64 << 20

// roomFor refuses a file that its file system has no room for before the disk
// of everybody is full of its beginning.
func roomFor(fd int, h *tar.Header) error {
	if h.Size < largeFile || sparse(h) {
		return nil
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return fmt.Errorf("statfs: %w", err)
	}
	if free := fs.Bavail * uint64(fs.Bsize); uint64(h.Size) > free {
		return fmt.Errorf("%d bytes, and %d are free: %w", h.Size, free, unix.ENOSPC)
	}
	return nil
}

// sparse tells files of whose size a part is not in the archive.
func sparse(h *tar.Header) bool {
	if h.Typeflag == tar.TypeGNUSparse {
		return true
	}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return false
}
