package storage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-cri/gantry/internal/errkind"
)

// lockPatience is how long Open waits for the lock: a process that was killed
// while it forked holds it through the child until that has started.
const lockPatience = 3 * time.Second

// lockRoot makes sure that no other process works on root.
func lockRoot(root string) (*os.File, error) {
	path := filepath.Join(root, "storage.lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	for deadline := time.Now().Add(lockPatience); ; time.Sleep(20 * time.Millisecond) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if errors.Is(err, unix.EWOULDBLOCK) && time.Now().Before(deadline) {
			continue
		}
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = errkind.Errorf(errkind.Precondition, "open store: %s is in use by another process", root)
		}
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
	}
}
