package storage

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gantry-cri/gantry/internal/errkind"
)

// maxPath is the longest name of a member: the kernel's PATH_MAX.
const maxPath = 4096

// Whiteouts in archives, see
// https://github.com/opencontainers/image-spec/blob/main/layer.md#whiteouts
const (
	whiteoutPrefix = ".wh."
	whiteoutMeta   = ".wh..wh."
	whiteoutOpaque = ".wh..wh..opq"
)

// unpacker writes one layer's archive into a directory that nobody else
// knows. Whatever the archive says, nothing outside is touched: parents are
// resolved by the kernel with the directory as their root, and the last
// component of a name is never followed.
type unpacker struct {
	root      int // descriptor of the layer's directory
	rootDepth int // how deep that is on the node
	umask     uint32
	limits    Limits
	buf       []byte

	entries int64
	bytes   int64

	parent     int // descriptor of parentPath; -1: none cached
	parentPath string

	// dirs get their attributes last: what is made in them changes their
	// times, and a setgid bit would reach their children.
	dirs     []pendingDir
	dirBytes int  // that dirs occupies, about
	lateDirs bool // some have theirs already: there were too many
	rootSeen bool // the archive has a member for the layer's root
}

// pendingDir is a directory whose attributes are still to be set.
type pendingDir struct {
	path string
	attr attributes
}

// maxPendingDirs bounds the memory that an archive can make us use, in bytes.
const maxPendingDirs = 8 << 20

// unpackLayer reads a whole archive, and what follows it, from r into dir.
// rootSeen reports whether the archive set the attributes of dir itself.
// Kinds: Invalid for what is no archive or not a decent one, Exhausted for one
// beyond the limits.
func unpackLayer(ctx context.Context, r io.Reader, dir string, limits Limits) (rootSeen bool, err error) {
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return false, fmt.Errorf("open %s: %w", dir, err)
	}
	u := &unpacker{root: root, umask: processUmask(), limits: limits.withDefaults(), buf: make([]byte, 128<<10), parent: -1}
	defer u.close()
	u.rootDepth = u.depth(root)
	if err := u.all(ctx, r); err != nil {
		u.limits.Image.give(u.bytes) // another try may follow
		return false, err
	}
	return u.rootSeen, nil
}

func (u *unpacker) close() {
	u.dropParent()
	_ = unix.Close(u.root) // O_PATH: nothing can be lost
}

func (u *unpacker) all(ctx context.Context, from io.Reader) error {
	r := &metered{r: from, u: u}
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return archiveError(err)
		}
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		if err := u.count(h); err != nil {
			return err
		}
		if err := u.entry(h, tr); err != nil {
			return fmt.Errorf("unpack %.200q: %w", h.Name, memberKind(err))
		}
	}
	if err := u.finishDirs(); err != nil {
		return memberKind(err)
	}
	return u.drain(r)
}

// archiveError tells a malformed archive from a stream that broke.
func archiveError(err error) error {
	if errors.Is(err, tar.ErrHeader) || errors.Is(err, tar.ErrFieldTooLong) {
		return errkind.Errorf(errkind.Invalid, "layer archive: %w", err)
	}
	return fmt.Errorf("layer archive: %w", err)
}

// count enforces the limits before anything is written.
func (u *unpacker) count(h *tar.Header) error {
	u.entries++
	if u.entries > u.limits.Entries {
		return errkind.Errorf(errkind.Exhausted, "layer has more than %d entries", u.limits.Entries)
	}
	if h.Uid < 0 || h.Gid < 0 || h.Uid >= math.MaxUint32 || h.Gid >= math.MaxUint32 {
		return errkind.Errorf(errkind.Invalid, "layer has a file of owner %d:%d", h.Uid, h.Gid)
	}
	if len(h.Name) > maxPath || len(h.Linkname) > maxPath {
		return errkind.Errorf(errkind.Invalid, "layer has a name of more than %d bytes", maxPath)
	}
	if h.Size < 0 || h.Size > u.limits.Bytes-u.bytes {
		return errkind.Errorf(errkind.Exhausted, "layer is larger than %d bytes", u.limits.Bytes)
	}
	u.bytes += h.Size
	return u.limits.Image.take(h.Size)
}

// drain reads what follows the archive's end: it belongs to the digest.
func (u *unpacker) drain(r io.Reader) error {
	for {
		_, err := r.Read(u.buf)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("layer archive: %w", err)
		}
	}
}

// entry makes one member of the archive.
func (u *unpacker) entry(h *tar.Header, content io.Reader) error {
	name, err := cleanName(h.Name)
	if err != nil {
		return err
	}
	if name == "." {
		return u.rootEntry(h)
	}
	dir, base := path.Split(name)
	if strings.HasPrefix(base, whiteoutPrefix) {
		return u.whiteout(path.Clean(dir), base)
	}
	parent, err := u.dir(path.Clean(dir))
	if err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return u.directory(parent, base, name, h)
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		return u.file(parent, base, h, content)
	case tar.TypeSymlink:
		return u.symlink(parent, base, h)
	case tar.TypeLink:
		return u.hardLink(parent, base, h)
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		return u.device(parent, base, h)
	case tar.TypeXGlobalHeader:
		return nil
	}
	return errkind.Errorf(errkind.Invalid, "member of unknown type %q", h.Typeflag)
}

// cleanName makes a member's name a path relative to the layer's root, and
// refuses one that leads out of it.
func cleanName(name string) (string, error) {
	if strings.ContainsRune(name, 0) {
		return "", errkind.Errorf(errkind.Invalid, "name with a null byte")
	}
	clean := path.Clean(strings.TrimLeft(name, "/"))
	if clean == ".." || strings.HasPrefix(clean, "../") {
		return "", errkind.Errorf(errkind.Invalid, "name leads out of the layer")
	}
	return clean, nil
}

func (u *unpacker) rootEntry(h *tar.Header) error {
	if h.Typeflag != tar.TypeDir {
		return errkind.Errorf(errkind.Invalid, "the layer's root is not a directory")
	}
	u.rootSeen = true
	return u.deferDir(".", attributesOf(h))
}

// whiteout hides a name of the layers below, or all of a directory. What this
// layer itself brings under that name stays.
func (u *unpacker) whiteout(dir, base string) error {
	if strings.HasPrefix(base, whiteoutMeta) && base != whiteoutOpaque {
		return nil // a builder's own bookkeeping
	}
	parent, err := u.dir(dir)
	if err != nil {
		return err
	}
	if base == whiteoutOpaque {
		return setOpaque(parent, ".")
	}
	hidden := strings.TrimPrefix(base, whiteoutPrefix)
	if hidden == "" || hidden == "." || hidden == ".." {
		return errkind.Errorf(errkind.Invalid, "whiteout of %q", hidden)
	}
	err = unix.Mknodat(parent, hidden, unix.S_IFCHR, 0)
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	st, err := lstatAt(parent, hidden)
	if err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return setOpaque(parent, hidden)
	}
	return err
}
