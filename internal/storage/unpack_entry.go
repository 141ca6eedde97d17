package storage

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gantry-cri/gantry/internal/errkind"
)

// directory makes a directory, or takes over the one that is there.
func (u *unpacker) directory(parent int, base, name string, h *tar.Header) error {
	err := u.mkdir(parent, base, 0o700)
	if errors.Is(err, unix.EEXIST) {
		var st unix.Stat_t
		if st, err = lstatAt(parent, base); err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			err = u.replaceByDir(parent, base, st)
		}
	}
	if err != nil {
		return err
	}
	return u.deferDir(name, attributesOf(h))
}

// replaceByDir puts a directory in the place of something else. Where that is
// a whiteout of this layer, the directory hides what is below it as well.
func (u *unpacker) replaceByDir(parent int, base string, old unix.Stat_t) error {
	if err := u.remove(parent, base); err != nil {
		return err
	}
	if err := u.mkdir(parent, base, 0o700); err != nil {
		return err
	}
	if isWhiteout(old) {
		return setOpaque(parent, base)
	}
	return nil
}

// file makes a regular file.
func (u *unpacker) file(parent int, base string, h *tar.Header, content io.Reader) (err error) {
	const flags = unix.O_CREAT | unix.O_EXCL | unix.O_WRONLY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	a := attributesOf(h)
	mode := a.mode & 0o777
	fd, err := unix.Openat(parent, base, flags, mode)
	if errors.Is(err, unix.EEXIST) {
		if err := u.remove(parent, base); err != nil {
			return err
		}
		fd, err = unix.Openat(parent, base, flags, mode)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	if err := roomFor(fd, h); err != nil {
		return err
	}
	if err := u.write(fd, content); err != nil {
		return err
	}
	if a.uid != 0 || a.gid != 0 || u.lateDirs {
		if err := unix.Fchown(fd, a.uid, a.gid); err != nil {
			return fmt.Errorf("chown: %w", err)
		}
	}
	// After the owner, whose change clears these bits.
	if a.mode&^0o777 != 0 || mode&u.umask != 0 {
		if err := unix.Fchmod(fd, a.mode); err != nil {
			return fmt.Errorf("chmod: %w", err)
		}
	}
	if err := a.setXattrs(func(name string, value []byte) error { return unix.Fsetxattr(fd, name, value, 0) }); err != nil {
		return err
	}
	return a.setTimes(parent, base)
}

func (u *unpacker) symlink(parent int, base string, h *tar.Header) error {
	if h.Linkname == "" {
		return errkind.Errorf(errkind.Invalid, "symbolic link to nothing")
	}
	err := u.replacing(parent, base, func() error { return unix.Symlinkat(h.Linkname, parent, base) })
	if err != nil {
		return err
	}
	return u.finishNode(parent, base, attributesOf(h))
}

// hardLink links to another file of this layer; a link in the place of the
// last component is linked itself, not followed.
func (u *unpacker) hardLink(parent int, base string, h *tar.Header) error {
	target, err := cleanName(h.Linkname)
	if err != nil {
		return err
	}
	dir, targetBase := path.Split(target)
	from, err := u.openDir(path.Clean(dir))
	if err != nil {
		return fmt.Errorf("hard link to %.200q: %w", h.Linkname, lookupKind(err))
	}
	defer unix.Close(from)
	link := func() error { return unix.Linkat(from, targetBase, parent, base, 0) }
	if err := link(); !errors.Is(err, unix.EEXIST) {
		return lookupKind(err)
	}
	same, err := sameFile(from, targetBase, parent, base)
	if err != nil || same {
		return lookupKind(err)
	}
	return lookupKind(u.replacing(parent, base, link))
}

// The largest numbers of a device that the kernel knows.
const (
	maxMajor = 1<<12 - 1
	maxMinor = 1<<20 - 1
)

// device makes a device node or a FIFO.
func (u *unpacker) device(parent int, base string, h *tar.Header) error {
	a := attributesOf(h)
	mode := a.mode & 0o777
	switch h.Typeflag {
	case tar.TypeChar:
		mode |= unix.S_IFCHR
	case tar.TypeBlock:
		mode |= unix.S_IFBLK
	default:
		mode |= unix.S_IFIFO
	}
	if h.Devmajor < 0 || h.Devmajor > maxMajor || h.Devminor < 0 || h.Devminor > maxMinor {
		return errkind.Errorf(errkind.Invalid, "device %d:%d", h.Devmajor, h.Devminor)
	}
	dev := unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))
	if mode&unix.S_IFMT == unix.S_IFCHR && dev == 0 {
		return errkind.Errorf(errkind.Invalid, "character device 0:0, which would be a whiteout")
	}
	err := u.replacing(parent, base, func() error { return unix.Mknodat(parent, base, mode, int(dev)) })
	if err != nil {
		return err
	}
	if err := u.finishNode(parent, base, a); err != nil {
		return err
	}
	return unix.Fchmodat(parent, base, a.mode, 0) // made here, and no link
}

// replacing runs create, removing what is in its way.
func (u *unpacker) replacing(parent int, base string, create func() error) error {
	err := create()
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	if err := u.remove(parent, base); err != nil {
		return err
	}
	return create()
}

// finishNode sets the owner, extended attributes and times of what can't be
// opened.
func (u *unpacker) finishNode(parent int, base string, a attributes) error {
	if a.uid != 0 || a.gid != 0 || u.lateDirs {
		if err := unix.Fchownat(parent, base, a.uid, a.gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return fmt.Errorf("chown: %w", err)
		}
	}
	set := func(name string, value []byte) error { return unix.Lsetxattr(procPath(parent, base), name, value, 0) }
	if err := a.setXattrs(set); err != nil {
		return err
	}
	return a.setTimes(parent, base)
}

// deferDir notes the attributes of a directory.
func (u *unpacker) deferDir(name string, a attributes) error {
	u.dirs = append(u.dirs, pendingDir{name, a})
	u.dirBytes += len(name) + a.size()
	if u.dirBytes < maxPendingDirs {
		return nil
	}
	u.lateDirs = true
	return u.finishDirs()
}

func (u *unpacker) finishDirs() error {
	for _, d := range u.dirs {
		if err := u.finishDir(d); err != nil {
			return fmt.Errorf("unpack %.200q: %w", d.path, err)
		}
	}
	u.dirs, u.dirBytes = u.dirs[:0], 0
	return nil
}

// finishDir sets a directory's attributes, if it is still one.
func (u *unpacker) finishDir(d pendingDir) error {
	how := unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: inRoot}
	fd, err := unix.Openat2(u.root, d.path, &how)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil // a later member took its place
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Fchown(fd, d.attr.uid, d.attr.gid); err != nil {
		return fmt.Errorf("chown: %w", err)
	}
	if err := unix.Fchmod(fd, d.attr.mode); err != nil {
		return fmt.Errorf("chmod: %w", err)
	}
	if err := d.attr.setXattrs(func(name string, value []byte) error { return unix.Fsetxattr(fd, name, value, 0) }); err != nil {
		return err
	}
	return d.attr.setTimes(fd, ".")
}

// attributes are what all kinds of members have in common.
type attributes struct {
	mode     uint32 // permissions with setuid, setgid and sticky
	uid, gid int
	times    [2]unix.Timespec // access, modification
	xattrs   map[string]string
}

// size is how much memory attributes take, about.
func (a attributes) size() int {
	n := 128
	for name, value := range a.xattrs {
		n += len(name) + len(value) + 64
	}
	return n
}

const xattrRecord = "SCHILY.xattr."

func attributesOf(h *tar.Header) attributes {
	a := attributes{mode: uint32(h.Mode) & 0o7777, uid: h.Uid, gid: h.Gid}
	a.times[1] = timespec(h.ModTime)
	a.times[0] = a.times[1]
	for key, value := range h.PAXRecords {
		if name, ok := strings.CutPrefix(key, xattrRecord); ok && keepXattr(name) {
			if a.xattrs == nil {
				a.xattrs = map[string]string{}
			}
			a.xattrs[name] = value
		}
	}
	return a
}

// keepXattr leaves out what is the overlay's business (a layer could hide or
// redirect directories of others with it) and what is the node's: labels.
func keepXattr(name string) bool {
	switch name {
	case "security.capability", "system.posix_acl_access", "system.posix_acl_default":
		return true
	}
	return strings.HasPrefix(name, "user.") && !strings.HasPrefix(name, "user.overlay.")
}

// setXattrs sets the extended attributes; those for which the file system has
// no place are left out, but never the capabilities of a program.
func (a attributes) setXattrs(set func(name string, value []byte) error) error {
	for name, value := range a.xattrs {
		err := set(name, []byte(value))
		if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EPERM) && strings.HasPrefix(name, "user.") {
			if !strings.HasPrefix(name, "security.") {
				continue
			}
		}
		if err != nil {
			return fmt.Errorf("set extended attribute %.100q: %w", name, err)
		}
	}
	return nil
}

func (a attributes) setTimes(parent int, base string) error {
	if err := unix.UtimesNanoAt(parent, base, a.times[:], unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("set times: %w", err)
	}
	return nil
}
