package storage

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gantry-cri/gantry/internal/errkind"
)

// upperLayer is the writable layer's index in a view.
const upperLayer = 0

// EnsureDir makes name (and its parents) a directory of the root filesystem,
// as mkdir -p with mode 0755 and owner 0:0 inside the container would;
// existing directories keep their mode and owner. errkind.Invalid if
// something else has the name. Not while the container runs.
func (s *Store) EnsureDir(r RootFS, name string) error {
	v, err := openView(r)
	if err != nil {
		return fmt.Errorf("make directory %s of %s: %w", name, r.Container, err)
	}
	defer v.close()
	n, err := v.walk(name, v.mkdir)
	if err == nil && !n.isDir() {
		err = unix.ENOTDIR
	}
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		err = errkind.Wrap(errkind.Invalid, err)
	}
	if err != nil {
		return fmt.Errorf("make directory %s of %s: %w", name, r.Container, err)
	}
	return nil
}

// mkdir is walk's missing for EnsureDir.
func (v *view) mkdir(dir node, name string) (node, error) {
	parent, err := v.copyUp(dir)
	if err != nil {
		return node{}, err
	}
	defer unix.Close(parent)
	wasHidden, err := removeWhiteout(parent, name)
	if err != nil {
		return node{}, err
	}
	n := node{path: path.Join(dir.path, name), layers: []int{upperLayer}, mode: unix.S_IFDIR | 0o755}
	fd, err := makeDirAt(parent, name, 0o755, v.ids.UIDs.onNode(0), v.ids.GIDs.onNode(0))
	if err != nil {
		return node{}, fmt.Errorf("mkdir %s: %w", n.path, err)
	}
	defer unix.Close(fd)
	if wasHidden {
		// What the whiteout hid must not come back.
		if err := unix.Fsetxattr(fd, opaqueXattr, []byte("y"), 0); err != nil {
			return node{}, fmt.Errorf("make %s opaque: %w", n.path, err)
		}
	}
	return n, nil
}

// copyUp makes the directory dir exist in the upper layer, its parents too,
// each with the mode and owner of the layer that shows it. It returns
// dir's descriptor there.
func (v *view) copyUp(dir node) (int, error) {
	fd, err := v.open(upperLayer, ".", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return -1, lookupError(".", err)
	}
	if dir.path == "." {
		return fd, nil
	}
	at, err := v.root()
	if err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	for part := range strings.SplitSeq(dir.path, "/") {
		next, err := v.child(at, part)
		if err != nil {
			return -1, errors.Join(err, unix.Close(fd))
		}
		below, err := v.copyUpOne(fd, next, part)
		if err = errors.Join(err, unix.Close(fd)); err != nil {
			return -1, err
		}
		fd, at = below, next
	}
	return fd, nil
}

// copyUpOne is one step of copyUp: the child name of the upper directory
// parent.
func (v *view) copyUpOne(parent int, n node, name string) (int, error) {
	if n.layers[0] == upperLayer {
		return v.open(upperLayer, n.path, unix.O_RDONLY|unix.O_DIRECTORY)
	}
	st, err := v.stat(n.layers[0], n.path)
	if err != nil {
		return -1, err
	}
	fd, err := makeDirAt(parent, name, st.Mode&0o7777, v.ids.UIDs.onNode(st.Uid), v.ids.GIDs.onNode(st.Gid))
	if err != nil {
		return -1, fmt.Errorf("copy up %s: %w", n.path, err)
	}
	return fd, nil
}

// makeDirAt creates a directory and returns its descriptor.
func makeDirAt(parent int, name string, mode uint32, uid, gid int) (int, error) {
	if err := unix.Mkdirat(parent, name, 0o700); err != nil {
		return -1, err
	}
	fd, err := unix.Openat(parent, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	// chown first: it may clear bits that chmod sets.
	if err := errors.Join(unix.Fchown(fd, uid, gid), unix.Fchmod(fd, mode)); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// removeWhiteout removes the whiteout name of an upper directory and reports
// whether there was one.
func removeWhiteout(parent int, name string) (bool, error) {
	var st unix.Stat_t
	err := unix.Fstatat(parent, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("stat %s: %w", name, err)
	}
	if !isWhiteout(st) {
		return false, fmt.Errorf("%s: %w", name, unix.EEXIST)
	}
	if err := unix.Unlinkat(parent, name, 0); err != nil {
		return false, fmt.Errorf("remove whiteout %s: %w", name, err)
	}
	return true, nil
}
