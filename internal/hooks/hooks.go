// Package hooks adds the OCI hooks that the node's administrator has put into
// directories to the specifications of containers. The files' format is the
// one of podman and CRI-O, version 1.0.0, see oci-hooks(5).
package hooks

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	rspec "github.com/opencontainers/runtime-spec/specs-go"
)

// fileMax bounds a hook's file, in bytes.
const fileMax = 1 << 20

// Dirs are directories with hooks. It is safe for concurrent use.
type Dirs struct {
	dirs     atomic.Pointer[[]string] // never nil
	problems atomic.Pointer[[]string] // of the last look at the directories
}

// New returns the hooks of dirs: a file of a later directory replaces one of
// the same name in an earlier one. Directories need not exist.
func New(dirs []string) *Dirs {
	d := &Dirs{}
	d.Set(dirs)
	return d
}

// Set makes the hooks of later containers those of dirs.
func (d *Dirs) Set(dirs []string) {
	if old := d.dirs.Swap(&dirs); old == nil || !slices.Equal(*old, dirs) {
		d.problems.Store(nil)
	}
}

// Apply adds to spec the hooks that are for it, by its annotations and its
// command, and by whether its request has bind mounts. The files are read each
// time, in the order of their names in lower case. One that can't be used is
// skipped and told by Problems.
func (d *Dirs) Apply(spec *rspec.Spec, bindMounts bool) {
	files, problems := d.files()
	names := slices.SortedFunc(maps.Keys(files), func(a, b string) int {
		if c := strings.Compare(strings.ToLower(a), strings.ToLower(b)); c != 0 {
			return c
		}
		return strings.Compare(a, b)
	})
	for _, name := range names {
		h, err := read(files[name])
		if err != nil {
			problems = append(problems, fmt.Sprintf("OCI hook %s is skipped: %v", files[name], err))
			continue
		}
		if h.matches(spec, bindMounts) {
			h.add(spec)
		}
	}
	d.problems.Store(&problems)
}

// Problems are the faults that the last container's creation met. Telling them
// waits for no disk.
func (d *Dirs) Problems() []string {
	if p := d.problems.Load(); p != nil {
		return *p
	}
	return nil
}

// files finds the hooks' files by their names.
func (d *Dirs) files() (map[string]string, []string) {
	files := map[string]string{}
	var problems []string
	for _, dir := range *d.dirs.Load() {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			problems = append(problems, fmt.Sprintf("OCI hooks: %v", err))
		}
		for _, entry := range entries {
			if filepath.Ext(entry.Name()) == ".json" {
				files[entry.Name()] = filepath.Join(dir, entry.Name())
			}
		}
	}
	return files, problems
}
