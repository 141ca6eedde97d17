// Package storage keeps images and the root filesystems of containers on disk:
// read-only layers in containers/storage (overlay driver), writable layers in
// plain directories beside it. It mounts nothing.
package storage

import (
	"context"
	"errors"

	cstorage "go.podman.io/storage"

	"github.com/gantry-cri/gantry/internal/id"
)

// Store is one instance's storage. All methods may be called concurrently.
type Store struct{}

// Reexec runs the helper that containers/storage starts as a child of the
// daemon, when this process is one. main (and TestMain) calls it first and
// returns at once when it reports true.
func Reexec() bool { return false }

// Open opens the store, creating it where there is none, removes what an
// interrupted pull left and builds the index. One process at a time may have
// a root open. An image that can't be read is left out and reported by
// Problems, never an error.
func Open(o Options) (*Store, error) { return nil, errors.New("storage: not yet") }

// Close releases the store. It unmounts and deletes nothing.
func (s *Store) Close() error { return nil }

// Library is the containers/storage handle below, for internal/image. Whoever
// changes an image through it calls Refresh afterwards.
func (s *Store) Library() cstorage.Store { return nil }

// Problems are the records that could not be used at the last scan.
func (s *Store) Problems() []error { return nil }

// Images is the current snapshot; it never waits.
func (s *Store) Images() *Index { return &Index{} }

// Refresh brings the index up to date with the library's records.
func (s *Store) Refresh() error { return nil }

// CreateRootFS makes a container's writable layer on top of an image of the
// index. The image's layers stay until RemoveRootFS, whatever happens to its
// names. errkind.NotFound if the image is not stored. A second call with the
// same arguments returns the same root filesystem.
func (s *Store) CreateRootFS(ctr id.Container, imageID string) (RootFS, error) {
	return RootFS{}, errors.New("storage: not yet")
}

// OpenRootFS returns what CreateRootFS returned, also after a restart and
// after the image's removal. errkind.NotFound if there is none.
func (s *Store) OpenRootFS(ctr id.Container, imageID string) (RootFS, error) {
	return RootFS{}, errors.New("storage: not yet")
}

// RemoveRootFS removes a container's writable layer; deleting the files goes
// on in the background. A layer that does not exist is no error.
func (s *Store) RemoveRootFS(ctr id.Container) error { return nil }

// Reclaim removes the writable layers that keep does not claim, and the
// layers and images that nothing uses any more. Called once at start.
func (s *Store) Reclaim(keep func(id.Container) bool) error { return nil }

// InUse reports whether a root filesystem was made from the image.
func (s *Store) InUse(imageID string) bool { return false }

// ReadFile reads a regular file of at most max bytes as the container sees
// it: through the upper and lower directories, symbolic links resolved inside
// the root filesystem. The error wraps fs.ErrNotExist if there is none.
func (s *Store) ReadFile(r RootFS, path string, max int64) ([]byte, error) {
	return nil, errors.New("storage: not yet")
}

// EnsureDir makes path (and its parents) a directory of the root filesystem,
// as mkdir -p with mode 0755 and owner 0:0 inside the container would;
// existing directories keep their mode and owner.
func (s *Store) EnsureDir(r RootFS, path string) error { return errors.New("storage: not yet") }

// ImageUsage and ContainerUsage are kept up to date in the background and
// never wait. ContainerUsage is one writable layer; false if not known (yet).
func (s *Store) ImageUsage() Usage { return Usage{} }

// ContainersUsage is the sum over all writable layers.
func (s *Store) ContainersUsage() Usage { return Usage{} }

// ContainerUsage is one container's writable layer as last measured.
func (s *Store) ContainerUsage(ctr id.Container) (Usage, bool) { return Usage{}, false }

// ImageDir and ContainerDir are the directories that hold the two, for
// ImageFsInfo's mount points.
func (s *Store) ImageDir() string { return "" }

// ContainerDir holds the writable layers.
func (s *Store) ContainerDir() string { return "" }

// Remove removes an image with all its names. While a root filesystem uses it
// only the names go: the layers follow with the last of them. An image that
// is not stored is no error.
func (s *Store) Remove(ctx context.Context, imageID string) error { return nil }
