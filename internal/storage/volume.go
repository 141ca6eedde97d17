package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/gantry-cri/gantry/internal/errkind"
)

// LocateInVolume resolves a path inside volume i of r, which nobody can change:
// the result has no symbolic link and no dots, and "." is the root. Links lead
// nowhere else than inside the volume. The error is errkind.Invalid for a path
// that is absolute, leads upwards or names nothing.
func (s *Store) LocateInVolume(r RootFS, i int, name string) (string, error) {
	if name == "" {
		return ".", nil
	}
	fail := func(err error) (string, error) {
		return "", errkind.Errorf(errkind.Invalid, "path %q in the image: %w", name, err)
	}
	if !filepath.IsLocal(name) {
		return fail(errors.New("it must be relative and lead nowhere else"))
	}
	v, err := openLayers(r.Volumes[i])
	if err != nil {
		return "", fmt.Errorf("path %q in the image: %w", name, err)
	}
	defer v.close()
	n, err := v.walk(name, absent)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		return fail(err)
	case err != nil:
		return "", fmt.Errorf("path %q in the image: %w", name, err)
	}
	return n.path, nil
}
