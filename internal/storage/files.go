package storage

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/gantry-cri/gantry/internal/errkind"
)

// ReadFile reads a regular file of at most max bytes as the container sees
// it: through the upper and lower directories, symbolic links resolved inside
// the root filesystem. The error wraps fs.ErrNotExist if there is none, and is
// errkind.Invalid for what is not a regular file and errkind.Exhausted for a
// larger one. What an untouched root filesystem says is remembered per image,
// so the result must not be changed.
func (s *Store) ReadFile(r RootFS, name string, max int64) ([]byte, error) {
	key := fileKey{r.ImageID, name}
	pristine := isEmptyDir(r.Upper)
	if pristine {
		if f, ok := s.files.get(key); ok && int64(len(f.body)) <= max {
			return f.body, f.err
		}
	}
	body, err := readFile(r, name, max)
	if err != nil {
		err = fmt.Errorf("read %s of %s: %w", name, r.Container, err)
	}
	if pristine && (err == nil || errors.Is(err, fs.ErrNotExist)) {
		s.files.put(key, cachedFile{body, err})
	}
	return body, err
}

func readFile(r RootFS, name string, max int64) ([]byte, error) {
	v, err := openView(r)
	if err != nil {
		return nil, err
	}
	defer v.close()
	n, err := v.walk(name, absent)
	if err != nil {
		return nil, err
	}
	// O_NONBLOCK: never wait for the writer of a FIFO.
	fd, err := v.open(n.layers[0], n.path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_NOFOLLOW)
	if err != nil {
		return nil, lookupError(n.path, err)
	}
	f := os.NewFile(uintptr(fd), n.path)
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errkind.Errorf(errkind.Invalid, "not a regular file but %s", info.Mode().Type())
	}
	body, err := io.ReadAll(io.LimitReader(f, max+1))
	if err != nil {
		return nil, err
	}
	if int64(len(body)) > max {
		return nil, errkind.Errorf(errkind.Exhausted, "larger than %d bytes", max)
	}
	return body, nil
}

func isEmptyDir(dir string) bool {
	f, err := os.Open(dir)
	if err != nil {
		return false
	}
	defer f.Close()
	_, err = f.Readdirnames(1)
	return errors.Is(err, io.EOF)
}

// The cache is for passwd and group: a few small files of each image in use.
const (
	maxCachedFiles = 128
	maxCachedBytes = 64 << 10
)

type fileKey struct{ image, name string }

type cachedFile struct {
	body []byte
	err  error // nil or fs.ErrNotExist
}

// fileCache remembers files of untouched root filesystems.
type fileCache struct {
	mu    sync.Mutex // guards files
	files map[fileKey]cachedFile
}

func (c *fileCache) init() { c.files = map[fileKey]cachedFile{} }

func (c *fileCache) get(k fileKey) (cachedFile, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f, ok := c.files[k]
	return f, ok
}

// put makes room by dropping any other entry: it is read again when needed.
func (c *fileCache) put(k fileKey, f cachedFile) {
	if len(f.body) > maxCachedBytes {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.files) >= maxCachedFiles {
		for other := range c.files {
			delete(c.files, other)
			break
		}
	}
	c.files[k] = f
}

func (c *fileCache) forget(image string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for k := range c.files {
		if k.image == image {
			delete(c.files, k)
		}
	}
}
