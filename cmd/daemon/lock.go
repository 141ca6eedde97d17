package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// instanceLock keeps two daemons from working in the same directories. The
// kernel releases it when the daemon ends, however it ends.
type instanceLock struct {
	files []*os.File
}

func lockInstance(dirs ...string) (*instanceLock, error) {
	l := &instanceLock{}
	for _, dir := range dirs {
		if err := l.add(dir); err != nil {
			l.release()
			return nil, err
		}
	}
	return l, nil
}

func (l *instanceLock) add(dir string) error {
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return err
	}
	for {
		f, err := os.OpenFile(filepath.Join(dir, "gantryd.lock"), os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return err
		}
		if err := flock(f); err != nil {
			err = errors.Join(err, f.Close())
			return fmt.Errorf("another gantryd works in %s: %w", dir, err)
		}
		if isAt(f, f.Name()) {
			l.files = append(l.files, f)
			return nil
		}
		// gantryd wipe removed the file while it was waited for.
		if err := f.Close(); err != nil {
			return err
		}
	}
}

// isAt reports whether the open file is the one that has the name.
func isAt(f *os.File, name string) bool {
	held, err := f.Stat()
	if err != nil {
		return false
	}
	named, err := os.Stat(name)
	return err == nil && os.SameFile(held, named)
}

// lockPatience is how long a lock is waited for: a daemon that was killed while
// it started a program holds it through the child until that is executed.
const lockPatience = 3 * time.Second

func flock(f *os.File) error {
	for deadline := time.Now().Add(lockPatience); ; time.Sleep(10 * time.Millisecond) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) || time.Now().After(deadline) {
			return err
		}
	}
}

func (l *instanceLock) release() {
	for _, f := range l.files {
		f.Close()
	}
}
