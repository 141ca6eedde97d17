// Package wipe removes from a node what daemons of one configuration have left
// in their directories, once their pods have ended. It relies on the names that
// Gantry gives to things there, and never on a directory being its own: what it
// does not know stays.
package wipe

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// lockFile is in each directory that a daemon has ever worked in.
const lockFile = "gantryd.lock"

// What is where is described in ARCHITECTURE.md, and in packages storage,
// network and sandbox.
var (
	runRecords  = []string{"pods", "naming", "storage", StandIn, "boot_id", "goroutines", "control.sock", "gantry.sock"}
	rootRecords = []string{"containers", "network", "bin", "tmp", "empty"}
	rootImages  = []string{"storage", "pieces", "removed", "unsynced", "damaged", "staging", "usage.json", "storage.lock"}
)

// StandIn is a directory of the run root, for who needs one while it is wiped.
const StandIn = "wiping"

// Scope is what is to be removed.
type Scope struct {
	Root, RunRoot string
	Listen        string   // the socket of the CRI, wherever it is
	RuntimeRoots  []string // where runtimes keep their state: removed if below RunRoot
	Images        bool     // the images, too
}

// Check returns why a scope can't be wiped: one of its directories is not
// Gantry's, or somebody has mounted something below what would be removed.
func (s Scope) Check() error {
	for _, dir := range []string{s.Root, s.RunRoot} {
		if marked(dir) {
			continue
		}
		if found := existing(dir, slices.Concat(runRecords, rootRecords, rootImages)); len(found) > 0 {
			return fmt.Errorf("%s is there, but no gantryd has ever worked in %s (it has no %s): does the configuration name the right directory?",
				found[0], dir, lockFile)
		}
	}
	foreign, err := s.foreignMounts()
	if err != nil {
		return err
	}
	if len(foreign) > 0 {
		return fmt.Errorf("something that is not Gantry's is mounted below what would be removed; unmount it first: %s", strings.Join(foreign, ", "))
	}
	return nil
}

// Places lists what there is to be removed.
func (s Scope) Places() []string {
	places := slices.Concat(s.runPlaces(), s.recordPlaces(), s.imagePlaces())
	if s.Images && marked(s.Root) {
		places = append(places, filepath.Join(s.Root, lockFile))
	}
	return places
}

// runPlaces begin with the records of pods: their directories are what a run
// after this one goes by.
func (s Scope) runPlaces() []string {
	if !marked(s.RunRoot) {
		return nil
	}
	places := existing(s.RunRoot, runRecords)
	for _, root := range s.RuntimeRoots {
		if below(root, s.RunRoot) && exists(root) {
			places = append(places, root)
		}
	}
	return append(places, filepath.Join(s.RunRoot, lockFile))
}

func (s Scope) recordPlaces() []string {
	if !marked(s.Root) {
		return nil
	}
	return existing(s.Root, rootRecords)
}

func (s Scope) imagePlaces() []string {
	if !s.Images || !marked(s.Root) {
		return nil
	}
	return existing(s.Root, rootImages)
}

// Outcome says what of a node came to its end before its records are removed.
type Outcome struct {
	Pods     bool // no pod is left
	Networks bool // every network was given back
	// Images is true where the names of images are all in the library's records.
	Images bool
}

// Remove removes what the scope names, except records of what is left of pods
// and networks: the next run needs them. The locks go last; the caller holds
// them. What is not Gantry's stays, and is told as a note. It returns an error
// for each thing that could not be removed.
func (s Scope) Remove(o Outcome) (notes []string, errs []error) {
	if !o.Pods {
		return []string{"the records and the images stay: pods are left that need them"}, nil
	}
	journal := "" // and the namespaces that are kept with it
	if !o.Networks {
		journal = filepath.Join(s.Root, "network")
	}
	keep := func(place string) bool {
		return place == journal || !o.Images && !s.Images && place == filepath.Join(s.RunRoot, "naming")
	}
	errs = append(errs, s.unmountOwn(journal)...)
	for _, place := range s.Places() {
		if filepath.Base(place) == lockFile || keep(place) {
			continue
		}
		if link, err := os.Readlink(place); err == nil {
			notes = append(notes, fmt.Sprintf("%s was a symbolic link; what it led to, %s, stays", place, link))
		}
		if err := removeTree(place); err != nil {
			errs = append(errs, err)
		}
	}
	if info, err := os.Lstat(s.Listen); err == nil && info.Mode().Type() == fs.ModeSocket {
		errs = append(errs, removeFile(s.Listen))
	}
	errs = compact(errs)
	if len(errs) > 0 || !o.Networks || !o.Images && !s.Images {
		return notes, errs
	}
	dirs := []string{s.RunRoot}
	if s.Images {
		dirs = append(dirs, s.Root)
	}
	for _, dir := range dirs {
		errs = append(errs, removeFile(filepath.Join(dir, lockFile)))
		if left := removeEmpty(dir); len(left) > 0 {
			notes = append(notes, fmt.Sprintf("%s stays: it has %s, which is not Gantry's", dir, strings.Join(left, ", ")))
		}
	}
	return notes, compact(errs)
}

// removeEmpty removes a directory, or returns what is in it. One that is a mount
// point stays, empty.
func removeEmpty(dir string) (left []string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	for _, e := range entries {
		left = append(left, e.Name())
	}
	if len(left) == 0 {
		_ = os.Remove(dir) // a mount point, or the administrator's link to another place
	}
	return left
}

func removeFile(file string) error {
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func marked(dir string) bool { return exists(filepath.Join(dir, lockFile)) }

func existing(dir string, names []string) []string {
	var found []string
	for _, name := range names {
		if path := filepath.Join(dir, name); exists(path) {
			found = append(found, path)
		}
	}
	return found
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// below tells whether path is in dir, by their names.
func below(path, dir string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != "." && rel != ".." && !strings.HasPrefix(rel, "../")
}

func compact(errs []error) []error {
	return slices.DeleteFunc(errs, func(err error) bool { return err == nil })
}
