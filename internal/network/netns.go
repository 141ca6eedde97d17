package network

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// threadNetNS is the network namespace of the calling thread.
const threadNetNS = "/proc/thread-self/ns/net"

// CreateNetNS makes a network namespace whose loopback interface is up and
// pins it by a bind mount on the file at path, whose directory must exist.
// A plain file left there by a crash is used; a namespace already pinned there
// is an error that wraps fs.ErrExist. On failure nothing is left.
func CreateNetNS(path string) error {
	return pinAt(path, func() error {
		return elsewhere(func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("unshare: %w", err)
			}
			return setUpNetNS(path)
		})
	})
}

// PinNetNS does the same with the network namespace of a process, which must
// live until it returns.
func PinNetNS(pid int, path string) error {
	return pinAt(path, func() error {
		fd, err := unix.Open(fmt.Sprintf("/proc/%d/ns/net", pid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("of process %d: %w", pid, err)
		}
		defer unix.Close(fd)
		return elsewhere(func() error {
			if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("enter that of process %d: %w", pid, err)
			}
			return setUpNetNS(path)
		})
	})
}

// pinAt makes the file at path on which pin is to pin a namespace.
func pinAt(path string, pin func() error) error {
	if isNetNS(path) {
		return fmt.Errorf("create network namespace %s: %w", path, fs.ErrExist)
	}
	f, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE|unix.O_NOFOLLOW, 0o444)
	if err != nil {
		return fmt.Errorf("create network namespace: %w", err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("create network namespace: %w", err)
	}
	if err := pin(); err != nil {
		return errors.Join(fmt.Errorf("create network namespace %s: %w", path, err), RemoveNetNS(path))
	}
	return nil
}

// insideNetNS runs fn on a thread that is in the namespace pinned at path.
func insideNetNS(path string, fn func() error) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("network namespace %s: %w", path, err)
	}
	defer unix.Close(fd)
	return elsewhere(func() error {
		if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace %s: %w", path, err)
		}
		return fn()
	})
}

// elsewhere runs fn, which may change the network namespace of its thread, on
// a thread that is then brought back to the node's. If that fails the thread
// ends, for which fn has a goroutine of its own. It is not left to end always,
// because the program's first thread can't.
func elsewhere(fn func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		node, err := unix.Open(threadNetNS, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			runtime.UnlockOSThread()
			done <- fmt.Errorf("open %s: %w", threadNetNS, err)
			return
		}
		defer unix.Close(node)
		err = fn()
		back := unix.Setns(node, unix.CLONE_NEWNET)
		if back == nil {
			runtime.UnlockOSThread()
		} else {
			back = fmt.Errorf("return to the node's network namespace: %w", back)
		}
		done <- errors.Join(err, back)
	}()
	return <-done
}

// setUpNetNS works on the calling thread's namespace.
func setUpNetNS(path string) error {
	if err := loopbackUp(); err != nil {
		return fmt.Errorf("bring up lo: %w", err)
	}
	if err := unix.Mount(threadNetNS, path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind mount: %w", err)
	}
	return nil
}

func loopbackUp() error {
	sock, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(sock)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(sock, unix.SIOCSIFFLAGS, req)
}

// RemoveNetNS unpins the namespace at path and removes the file. The namespace
// itself ends with its last process or open file. It is idempotent.
func RemoveNetNS(path string) error {
	for {
		err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EINVAL) { // not, or no longer, a mount point
			break
		}
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("remove network namespace: unmount %s: %w", path, err)
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove network namespace: %w", err)
	}
	return nil
}

// keepNetNS pins the namespace pinned at path at kept too, and reports whether
// it could: it may be gone.
func keepNetNS(path, kept string) bool {
	if !isNetNS(path) {
		return false
	}
	f, err := os.OpenFile(kept, os.O_RDONLY|os.O_CREATE|unix.O_NOFOLLOW, 0o444)
	if err != nil {
		return false
	}
	return f.Close() == nil && unix.Mount(path, kept, "", unix.MS_BIND, "") == nil
}

// isNetNS reports whether a namespace is pinned at path, and not merely the
// file on which one was before a reboot.
func isNetNS(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Type == unix.NSFS_MAGIC
}
