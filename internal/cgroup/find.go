package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gantry-cri/gantry/internal/node"
)

// Find lists the cgroups of any hierarchy whose own name match accepts, each
// once, sorted. Those below one that is found are not looked at.
func Find(f node.Facts, match func(name string) bool) ([]string, error) {
	var found []string
	for _, root := range roots(f) {
		err := filepath.WalkDir(root, func(dir string, e fs.DirEntry, err error) error {
			switch {
			case gone(err):
				return nil
			case err != nil:
				return err
			case !e.IsDir() || dir == root || !match(e.Name()):
				return nil
			}
			found = append(found, strings.TrimPrefix(dir, root))
			return fs.SkipDir
		})
		if err != nil {
			return nil, fmt.Errorf("look for cgroups: %w", err)
		}
	}
	slices.Sort(found)
	return slices.Compact(found), nil
}

// RemoveEmpty removes the children of the cgroup parent whose names match
// accepts, if no process is in them, and then parent itself if nothing is left in
// it. What is in use is another's, and no error.
func RemoveEmpty(ctx context.Context, f node.Facts, parent string, match func(name string) bool) error {
	if isRoot(parent) {
		return nil
	}
	var names []string
	for _, dir := range Paths(f, parent) {
		children, err := childDirs(dir)
		if err != nil {
			return err
		}
		for _, child := range children {
			if name := filepath.Base(child); match(name) && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	var errs []error
	for _, name := range names {
		child := filepath.Join(Clean(parent), name)
		pids, err := Procs(f, child)
		if err == nil && len(pids) == 0 {
			err = Remove(ctx, f, child)
		}
		errs = append(errs, err)
	}
	for _, dir := range Paths(f, parent) {
		if err := unix.Rmdir(dir); err != nil && !gone(err) && !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ENOTEMPTY) {
			errs = append(errs, fmt.Errorf("remove cgroup: %w", err))
		}
	}
	return errors.Join(errs...)
}
