package storage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ProbeIDMap finds out whether the kernel, and the file system that holds the
// layers, can make a root filesystem for a user namespace, in which the layers
// have mapped ids: it makes one. The namespace must map id 0 to another one.
// What it mounts no other thread sees, and a killed daemon leaves an empty
// directory that the next one removes.
func (s *Store) ProbeIDMap(namespace *os.File, root uint32) (err error) {
	dir, err := os.MkdirTemp(s.stagingDir(), "probe-")
	if err != nil {
		return fmt.Errorf("probe mounts with mapped ids: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	for _, name := range []string{"lower", "lower/file", "layer", "upper", "work", "merged"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			return fmt.Errorf("probe mounts with mapped ids: %w", err)
		}
	}
	if err := inPrivateMounts(func() error { return probeIDMap(dir, namespace, root) }); err != nil {
		return fmt.Errorf("probe mounts with mapped ids: %w", err)
	}
	return nil
}

// probeIDMap works in a mount namespace that ends with it.
func probeIDMap(dir string, namespace *os.File, root uint32) error {
	in := func(name string) string { return filepath.Join(dir, name) }
	layer, err := unix.OpenTree(unix.AT_FDCWD, in("lower"), unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return fmt.Errorf("copy a mount: %w", err)
	}
	defer unix.Close(layer)
	attr := unix.MountAttr{
		Attr_set: unix.MOUNT_ATTR_IDMAP, Propagation: unix.MS_PRIVATE, Userns_fd: uint64(namespace.Fd()),
	}
	if err := unix.MountSetattr(layer, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		return fmt.Errorf("map the ids of a mount: %w", err)
	}
	if err := unix.MoveMount(layer, "", unix.AT_FDCWD, in("layer"), unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("attach a mount: %w", err)
	}
	// The working directory is the thread's own, as its mounts are.
	if err := unix.Chdir(dir); err != nil {
		return fmt.Errorf("enter %s: %w", dir, err)
	}
	options := fmt.Sprintf("lowerdir=/proc/thread-self/fd/%d,upperdir=upper,workdir=work", layer)
	if err := unix.Mount("overlay", "merged", "overlay", 0, options); err != nil {
		return fmt.Errorf("mount an overlay of layers with mapped ids: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Stat("merged/file", &st); err != nil {
		return fmt.Errorf("look at a mapped file: %w", err)
	}
	if st.Uid != root || st.Gid != root {
		return fmt.Errorf("a file of root in a layer belongs to %d:%d, not to %d", st.Uid, st.Gid, root)
	}
	return nil
}

// ProbeOverlay finds out whether an overlay whose layers are in dir can be
// mounted and written to. What it mounts no other thread sees, and it leaves
// nothing in dir; killed, an empty directory .gantry-probe-*.
func ProbeOverlay(dir string) (err error) {
	in, err := os.MkdirTemp(dir, ".gantry-probe-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(in)) }()
	for _, name := range []string{"lower", "lower/file", "upper", "work", "merged"} {
		if err := os.Mkdir(filepath.Join(in, name), 0o755); err != nil {
			return err
		}
	}
	return inPrivateMounts(func() error {
		if err := unix.Chdir(in); err != nil { // the thread's own, as its mounts are
			return err
		}
		if err := unix.Mount("overlay", "merged", "overlay", 0, "lowerdir=lower,upperdir=upper,workdir=work"); err != nil {
			return fmt.Errorf("mount: %w", err)
		}
		if err := unix.Rmdir("merged/file"); err != nil {
			return fmt.Errorf("write: %w", err)
		}
		return nil
	})
}
