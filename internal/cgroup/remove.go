package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-cri/gantry/internal/node"
)

// busyTimeout bounds how long Remove tries again while a directory is busy.
const busyTimeout = 2 * time.Second

// Remove removes the cgroup and all below it, bottom-up, in every hierarchy.
// A cgroup that does not exist is no error. One that is busy is tried again
// for a short while: the kernel needs a moment after its last process ended.
// Processes are not ended: see KillAll.
func Remove(ctx context.Context, f node.Facts, path string) error {
	if isRoot(path) {
		return fmt.Errorf("remove cgroup %q: it is the root", path)
	}
	ctx, cancel := context.WithTimeout(ctx, busyTimeout)
	defer cancel()
	var errs []error
	for _, dir := range Paths(f, path) {
		if err := removeBusy(ctx, dir); err != nil {
			errs = append(errs, fmt.Errorf("remove cgroup: %w", err))
		}
	}
	return errors.Join(errs...)
}

// removeBusy removes the tree at dir, again and again while it is busy, until ctx ends.
func removeBusy(ctx context.Context, dir string) error {
	for pause := time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		err := removeTree(dir)
		if !errors.Is(err, unix.EBUSY) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
		}
	}
}

// removeTree removes dir and the directories below it, once, depth first.
// Only rmdir is used: the files of a cgroup vanish with it.
func removeTree(dir string) error {
	err := unix.Rmdir(dir)
	switch {
	case err == nil, errors.Is(err, unix.ENOENT):
		return nil
	case !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ENOTEMPTY):
		return &fs.PathError{Op: "rmdir", Path: dir, Err: err}
	}
	children, err := childDirs(dir)
	if err != nil {
		return err
	}
	for _, child := range children {
		if err := removeTree(child); err != nil {
			return err
		}
	}
	if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) {
		return &fs.PathError{Op: "rmdir", Path: dir, Err: err}
	}
	return nil
}

// childDirs lists the directories in dir; none if dir does not exist.
func childDirs(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		if gone(err) {
			return nil, nil
		}
		return nil, err
	}
	var dirs []string
	for _, e := range entries {
		if e.IsDir() {
			dirs = append(dirs, filepath.Join(dir, e.Name()))
		}
	}
	return dirs, nil
}

// gone reports whether err says that a cgroup does not exist, or was removed
// while one of its files was open.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV)
}
