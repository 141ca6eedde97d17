package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gantry-cri/gantry/internal/errkind"
)

// maxLinks is how many symbolic links one lookup follows, as in the kernel.
const maxLinks = 40

// opaqueXattr marks a directory that hides what is below it. See
// https://docs.kernel.org/filesystems/overlayfs.html
const opaqueXattr = "trusted.overlay.opaque"

// inLayer forbids a lookup to leave the layer or to follow any link: links
// are resolved against the whole root filesystem, not against one layer.
const inLayer = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS

// view is a root filesystem as its container sees it, without a mount: the
// layers' directories, upper first. Its files are read and written through
// descriptors, so that a container that changes its own upper directory
// meanwhile can't lead us out of it.
type view struct {
	layers []int // descriptors, upper first
	ids    IDMap // of the upper layer
}

// openView opens the layers; close releases them.
func openView(r RootFS) (*view, error) {
	v, err := openLayers(append([]string{r.Upper}, r.Lower...))
	if err == nil {
		v.ids = r.IDs
	}
	return v, err
}

func openLayers(dirs []string) (_ *view, err error) {
	v := &view{}
	defer func() {
		if err != nil {
			v.close()
		}
	}()
	for _, dir := range dirs {
		fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, &fs.PathError{Op: "open layer", Path: dir, Err: err}
		}
		v.layers = append(v.layers, fd)
	}
	return v, nil
}

func (v *view) close() {
	for _, fd := range v.layers {
		_ = unix.Close(fd) // O_PATH: nothing can be lost
	}
}

// node is an entry of the merged tree.
type node struct {
	path   string // inside the root, no links, "." is the root
	layers []int  // indices of the layers that make it up, topmost first; one unless a directory
	mode   uint32
}

func (n node) isDir() bool { return n.mode&unix.S_IFMT == unix.S_IFDIR }

// root is the merged "/".
func (v *view) root() (node, error) {
	n := node{path: ".", mode: unix.S_IFDIR}
	for i := range v.layers {
		n.layers = append(n.layers, i)
		if opaque, err := v.opaque(i, "."); err != nil || opaque {
			return n, err
		}
	}
	return n, nil
}

// child looks name up in the directory dir; fs.ErrNotExist if it is absent or
// hidden by a whiteout.
func (v *view) child(dir node, name string) (node, error) {
	n := node{path: path.Join(dir.path, name)}
	for _, i := range dir.layers {
		st, err := v.stat(i, n.path)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return node{}, err
		}
		isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
		if isWhiteout(st) || len(n.layers) > 0 && !isDir {
			break
		}
		if len(n.layers) == 0 {
			n.mode = st.Mode
		}
		n.layers = append(n.layers, i)
		if !isDir {
			break
		}
		opaque, err := v.opaque(i, n.path)
		if err != nil {
			return node{}, err
		}
		if opaque {
			break
		}
	}
	if len(n.layers) == 0 {
		return node{}, &fs.PathError{Op: "lookup", Path: n.path, Err: fs.ErrNotExist}
	}
	return n, nil
}

func isWhiteout(st unix.Stat_t) bool {
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
}

// walk resolves name from the root. Links are followed, and ".." never leaves
// the root. Where a component does not exist, missing decides: it returns the
// node to go on with, or an error.
func (v *view) walk(name string, missing func(dir node, name string) (node, error)) (node, error) {
	if len(name) > unix.PathMax || strings.ContainsRune(name, 0) {
		return node{}, errkind.Errorf(errkind.Invalid, "bad path of %d bytes", len(name))
	}
	root, err := v.root()
	if err != nil {
		return node{}, err
	}
	stack, todo, links := []node{root}, strings.Split(name, "/"), 0
	for len(todo) > 0 {
		part, here := todo[0], stack[len(stack)-1]
		todo = todo[1:]
		if part == "" || part == "." {
			continue
		}
		if !here.isDir() {
			return node{}, &fs.PathError{Op: "lookup", Path: here.path, Err: unix.ENOTDIR}
		}
		if part == ".." {
			stack = stack[:max(1, len(stack)-1)]
			continue
		}
		n, err := v.child(here, part)
		if errors.Is(err, fs.ErrNotExist) {
			n, err = missing(here, part)
		}
		if err != nil {
			return node{}, err
		}
		if n.mode&unix.S_IFMT != unix.S_IFLNK {
			stack = append(stack, n)
			continue
		}
		if links++; links > maxLinks {
			return node{}, &fs.PathError{Op: "lookup", Path: name, Err: unix.ELOOP}
		}
		target, err := v.readlink(n)
		if err != nil {
			return node{}, err
		}
		if strings.HasPrefix(target, "/") {
			stack = stack[:1]
		}
		todo = append(strings.Split(target, "/"), todo...)
	}
	return stack[len(stack)-1], nil
}

// absent is walk's missing for lookups that create nothing.
func absent(dir node, name string) (node, error) {
	return node{}, &fs.PathError{Op: "lookup", Path: path.Join(dir.path, name), Err: fs.ErrNotExist}
}

// open opens name in one layer.
func (v *view) open(layer int, name string, flags int) (int, error) {
	how := unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Resolve: inLayer}
	for {
		fd, err := unix.Openat2(v.layers[layer], name, &how)
		if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) {
			return fd, err
		}
	}
}

func (v *view) stat(layer int, name string) (unix.Stat_t, error) {
	var st unix.Stat_t
	// Only the last component may be a link: O_NOFOLLOW makes it the object.
	fd, err := v.open(layer, name, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return st, lookupError(name, err)
	}
	defer unix.Close(fd)
	if err := unix.Fstat(fd, &st); err != nil {
		return st, lookupError(name, err)
	}
	return st, nil
}

func (v *view) readlink(n node) (string, error) {
	fd, err := v.open(n.layers[0], n.path, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return "", lookupError(n.path, err)
	}
	defer unix.Close(fd)
	buf := make([]byte, unix.PathMax)
	size, err := unix.Readlinkat(fd, "", buf)
	if err != nil {
		return "", lookupError(n.path, err)
	}
	return string(buf[:size]), nil
}

func (v *view) opaque(layer int, name string) (bool, error) {
	fd, err := v.open(layer, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return false, lookupError(name, err)
	}
	defer unix.Close(fd)
	var value [8]byte
	size, err := unix.Fgetxattr(fd, opaqueXattr, value[:])
	switch {
	case errors.Is(err, unix.ENODATA), errors.Is(err, unix.ENOTSUP):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("read %s of %s: %w", opaqueXattr, name, err)
	}
	return string(value[:size]) == "y", nil
}

func lookupError(name string, err error) error {
	return os.NewSyscallError("lookup "+name, err)
}
