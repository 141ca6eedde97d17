package wipe

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// removeTree removes the file, link or directory at path with all that is in it.
// No link is followed and no mount point is passed, whether of another file
// system or the same. path itself may be a mount point: it is emptied then. A
// path that does not exist is no error.
func removeTree(path string) error {
	err := unix.Unlink(path)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	if !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EPERM) {
		return &os.PathError{Op: "remove", Path: path, Err: err}
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "remove", Path: path, Err: err}
	}
	top := os.NewFile(uintptr(fd), path)
	defer top.Close() // only read from
	r := remover{top: fd}
	for r.again = true; r.again && err == nil; {
		r.again = false
		err = r.empty(top, 0)
	}
	if err != nil {
		return err
	}
	if err := unix.Rmdir(path); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EBUSY) {
		return &os.PathError{Op: "remove", Path: path, Err: err}
	}
	return nil
}

// remover is the removal of one tree.
type remover struct {
	top    int  // the tree's directory
	again  bool // something was moved up into it
	serial int
}

// depthMax is how deep the remover goes, with a descriptor for each level: what
// is deeper is moved up. Containers can nest directories without limit.
const depthMax = 200

// empty removes everything in dir. It goes on where something can't be removed,
// and returns the first error.
func (r *remover) empty(dir *os.File, depth int) error {
	var first error
	for {
		// From the beginning each time: a directory is read while it changes.
		if _, err := dir.Seek(0, io.SeekStart); err != nil {
			return err
		}
		names, err := dir.Readdirnames(4096)
		if errors.Is(err, io.EOF) || err == nil && len(names) == 0 {
			return first
		}
		if err != nil {
			return err
		}
		removed := 0
		for _, name := range names {
			if err := r.remove(dir, name, depth); err == nil {
				removed++
			} else if first == nil {
				first = err
			}
		}
		if removed == 0 {
			return first
		}
	}
}

// remove removes one entry of dir.
func (r *remover) remove(dir *os.File, name string, depth int) error {
	at, path := int(dir.Fd()), filepath.Join(dir.Name(), name)
	err := unix.Unlinkat(at, name, 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	if !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EPERM) {
		return &os.PathError{Op: "remove", Path: path, Err: err}
	}
	if depth >= depthMax {
		return r.moveUp(at, name, path)
	}
	fd, err := unix.Openat2(at, name, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_XDEV | unix.RESOLVE_NO_SYMLINKS,
	})
	if errors.Is(err, unix.EXDEV) {
		return fmt.Errorf("%s stays: something is mounted there", path)
	}
	if err != nil {
		return &os.PathError{Op: "remove", Path: path, Err: err}
	}
	child := os.NewFile(uintptr(fd), path)
	err = r.empty(child, depth+1)
	if err := errors.Join(err, child.Close()); err != nil {
		return err
	}
	if err := unix.Unlinkat(at, name, unix.AT_REMOVEDIR); err != nil && !errors.Is(err, unix.ENOENT) {
		return &os.PathError{Op: "remove", Path: path, Err: err}
	}
	return nil
}

// moveUp moves a directory that is too deep into the top one.
func (r *remover) moveUp(at int, name, path string) error {
	r.serial++
	r.again = true
	target := ".wiping-" + strconv.Itoa(os.Getpid()) + "-" + strconv.Itoa(r.serial)
	if err := unix.Renameat2(at, name, r.top, target, unix.RENAME_NOREPLACE); err != nil {
		return &os.PathError{Op: "remove", Path: path, Err: err}
	}
	return nil
}
