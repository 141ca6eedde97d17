package storage

import (
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ImageMountpoint is where the file system of the images is mounted, and
// ContainerMountpoint where that of the writable layers is. The kubelet takes
// two names for two file systems, each with room of its own.
func (s *Store) ImageMountpoint() string { return mountpoint(s.graphRoot()) }

// ContainerMountpoint is described with ImageMountpoint.
func (s *Store) ContainerMountpoint() string { return mountpoint(s.containersDir()) }

// mountpoint finds the root of the mount that dir is in, and returns dir itself
// where the kernel (before 5.8) does not tell.
func mountpoint(dir string) string {
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return dir
	}
	for at := real; ; at = filepath.Dir(at) {
		var st unix.Statx_t
		if err := unix.Statx(unix.AT_FDCWD, at, unix.AT_NO_AUTOMOUNT, 0, &st); err != nil || st.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT == 0 {
			return dir
		}
		if st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0 || at == "/" {
			return at
		}
	}
}
