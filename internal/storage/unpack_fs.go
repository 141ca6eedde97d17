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
		if err := u.makeParents(name); err != nil {
			return -1, err
		}
		fd, err = u.openDir(name)
	}
	if err != nil {
		return -1, fmt.Errorf("open directory %.200q: %w", name, lookupKind(err))
	}
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

// makeParents makes the directories of which the archive has no member.
func (u *unpacker) makeParents(name string) error {
	if name == "." {
		return nil
	}
	dir, base := path.Split(name)
	parent, err := u.dir(path.Clean(dir))
	if err != nil {
		return err
	}
	err = unix.Mkdirat(parent, base, 0o755)
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	if err == nil {
		err = unix.Fchmodat(parent, base, 0o755, 0) // whatever the umask; nobody else knows of it
	}
	if err != nil {
		return fmt.Errorf("make directory %.200q: %w", name, err)
	}
	return nil
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

// procPath names an entry of a directory that we have open, for calls that
// take no descriptor.
func procPath(dir int, base string) string {
	return "/proc/self/fd/" + strconv.Itoa(dir) + "/" + base
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
