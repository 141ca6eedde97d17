package storage

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-cri/gantry/internal/errkind"
)

// inRoot resolves a member's parents as the container would: links are
// followed, and lead nowhere but into the layer.
const inRoot = unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS

// stale is the path of a cached descriptor that must not be found again.
const stale = "/"

// dir returns a descriptor of a directory of the layer, making it if it is
// missing. It stays open until the next call that needs another one.
func (u *unpacker) dir(name string) (int, error) {
	if u.parent >= 0 && u.parentPath == name {
		return u.parent, nil
	}
	u.dropParent()
	fd, err := u.openDir(name)
	if errors.Is(err, unix.ENOENT) {
		if err := u.makeParents(name, 0); err != nil {
			return -1, err
		}
		fd, err = u.openDir(name)
	}
	if err != nil {
		return -1, fmt.Errorf("open directory %.200q: %w", name, lookupKind(err))
	}
	u.dropParent() // makeParents has used it
	u.parent, u.parentPath = fd, name
	return fd, nil
}

func (u *unpacker) openDir(name string) (int, error) {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: inRoot}
	for {
		fd, err := unix.Openat2(u.root, name, &how)
		if !errors.Is(err, unix.EAGAIN) { // something was renamed on the file system meanwhile
			return fd, err
		}
	}
}

func (u *unpacker) dropParent() {
	if u.parent >= 0 {
		_ = unix.Close(u.parent) // O_PATH: nothing can be lost
		u.parent = -1
	}
}

// makeParents makes the directories of which the archive has no member. One
// may be a link to a directory that only a layer below has: then that is made.
func (u *unpacker) makeParents(name string, links int) error {
	if name == "." {
		return nil
	}
	dir, base := path.Split(name)
	parent, err := u.dir(path.Clean(dir))
	if err != nil {
		return err
	}
	err = u.mkdir(parent, base, 0o755)
	if errors.Is(err, unix.EEXIST) {
		return u.makeTarget(parent, dir, base, links)
	}
	if err == nil {
		err = unix.Fchmodat(parent, base, 0o755, 0) // whatever the umask; nobody else knows of it
	}
	if err != nil {
		return fmt.Errorf("make directory %.200q: %w", name, memberKind(err))
	}
	return nil
}

// makeTarget makes what the link base of the directory dir leads to; nothing
// where it is no link.
func (u *unpacker) makeTarget(parent int, dir, base string, links int) error {
	target := make([]byte, maxPath)
	n, err := unix.Readlinkat(parent, base, target)
	if errors.Is(err, unix.EINVAL) {
		return nil // something else, perhaps a directory
	}
	if err == nil && links >= maxLinks {
		err = unix.ELOOP
	}
	if err != nil {
		return lookupKind(err)
	}
	to := string(target[:n])
	if !path.IsAbs(to) {
		to = path.Join("/", dir, to)
	}
	return u.makeParents(cleanTarget(to), links+1)
}

// cleanTarget is an absolute target of a link, relative to the layer's root,
// out of which it does not lead.
func cleanTarget(to string) string {
	if to = path.Clean(to); to == "/" {
		return "."
	}
	return to[1:]
}

// maxDepth is how deep directories may be nested. Whoever walks a tree has a
// descriptor open for each level, and by way of links an archive can nest
// them far deeper than a name is long.
const maxDepth = 512

func (u *unpacker) mkdir(parent int, base string, mode uint32) error {
	if u.depth(parent) >= maxDepth {
		return errkind.Errorf(errkind.Invalid, "directories are nested more than %d deep", maxDepth)
	}
	return unix.Mkdirat(parent, base, mode)
}

// depth is how many directories are above one of the layer, its root included;
// beyond all bounds where its path is longer than the kernel tells.
func (u *unpacker) depth(dir int) int {
	path := u.buf[:maxPath] // nothing is being written
	n, err := unix.Readlink(procPath(dir, ""), path)
	if err != nil || n == len(path) {
		return maxDepth
	}
	return bytes.Count(path[:n], []byte{'/'}) - u.rootDepth
}

// remove takes away what is in a member's way.
func (u *unpacker) remove(parent int, base string) error {
	u.parentPath = stale // it may have led through what is removed
	err := unix.Unlinkat(parent, base, 0)
	if !errors.Is(err, unix.EISDIR) {
		return err
	}
	// os.Root never follows a link out of parent.
	root, err := os.OpenRoot("/proc/self/fd/" + strconv.Itoa(parent))
	if err != nil {
		return err
	}
	return errors.Join(root.RemoveAll(base), root.Close())
}

func lstatAt(dir int, name string) (st unix.Stat_t, err error) {
	err = unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	return st, err
}

func sameFile(dirA int, nameA string, dirB int, nameB string) (bool, error) {
	a, errA := lstatAt(dirA, nameA)
	b, errB := lstatAt(dirB, nameB)
	return a.Dev == b.Dev && a.Ino == b.Ino, errors.Join(errA, errB)
}

func setOpaque(parent int, base string) error {
	if err := unix.Lsetxattr(procPath(parent, base), opaqueXattr, []byte("y"), 0); err != nil {
		return fmt.Errorf("mark opaque: %w", err)
	}
	return nil
}

// procPath names an entry of a directory that we have open, or with "" itself,
// for calls that take no descriptor.
func procPath(dir int, base string) string {
	path := "/proc/self/fd/" + strconv.Itoa(dir)
	if base == "" {
		return path
	}
	return path + "/" + base
}

// lookupKind blames the archive for names that lead nowhere.
func lookupKind(err error) error {
	for _, kind := range []error{unix.ENOENT, unix.ENOTDIR, unix.ELOOP, unix.EXDEV, unix.EPERM, unix.ENAMETOOLONG} {
		if errors.Is(err, kind) {
			return errkind.Errorf(errkind.Invalid, "%w", err)
		}
	}
	return err
}

// memberKind blames the archive for what no file system takes, and a limit of
// the file system for what this one does not.
func memberKind(err error) error {
	if errkind.Of(err) != errkind.Other {
		return err
	}
	for _, kind := range []error{unix.EINVAL, unix.ENAMETOOLONG, unix.ENOTDIR, unix.ELOOP, unix.EXDEV, unix.E2BIG, unix.ERANGE, unix.EILSEQ} {
		if errors.Is(err, kind) {
			return errkind.Wrap(errkind.Invalid, err)
		}
	}
	for _, kind := range []error{unix.EMLINK, unix.EFBIG, unix.ENOSPC, unix.EDQUOT} {
		if errors.Is(err, kind) {
			return errkind.Wrap(errkind.Exhausted, err)
		}
	}
	return err
}

// timespec clamps a time to what every file system can hold.
func timespec(t time.Time) unix.Timespec {
	const latest = 1 << 34 // ext4's last second, in the year 2514
	sec := t.Unix()
	if t.IsZero() || sec < 0 || sec >= latest {
		return unix.Timespec{}
	}
	return unix.NsecToTimespec(t.UnixNano())
}

// processUmask reads the umask without changing it; all bits where it can't
// be read, which only costs a call per file.
func processUmask() uint32 {
	const unknown = 0o777
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return unknown
	}
	for line := range bytes.Lines(status) {
		if value, ok := bytes.CutPrefix(line, []byte("Umask:")); ok {
			mask, err := strconv.ParseUint(string(bytes.TrimSpace(value)), 8, 32)
			if err != nil {
				return unknown
			}
			return uint32(mask)
		}
	}
	return unknown
}
