package storage

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/gantry-cri/gantry/internal/id"
)

// mendLinks puts right what power loss leaves of the driver's short names for
// layers, each a link in one directory whose name is in a file of the layer.
// An empty such file would make the driver remove all links with that layer.
func mendLinks(graphRoot string) error {
	home := filepath.Join(graphRoot, "overlay")
	entries, err := os.ReadDir(home)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(home, "l"), 0o755); err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if e.IsDir() && id.Valid(e.Name()) {
			errs = append(errs, mendLink(home, e.Name()))
		}
	}
	return errors.Join(append(errs, dropLinks(home))...)
}

// dropLinks removes the links of which no layer knows.
func dropLinks(home string) error {
	links, err := os.ReadDir(filepath.Join(home, "l"))
	if err != nil {
		return err
	}
	var errs []error
	for _, link := range links {
		path := filepath.Join(home, "l", link.Name())
		to, err := os.Readlink(path)
		if err != nil {
			continue // none of the driver's
		}
		name, err := os.ReadFile(filepath.Join(home, "l", filepath.Dir(to), "link"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) || err == nil && string(name) == link.Name() {
			continue
		}
		errs = append(errs, os.Remove(path))
	}
	return errors.Join(errs...)
}

func mendLink(home, layer string) error {
	file := filepath.Join(home, layer, "link")
	name, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // of no use to anybody
	}
	if err != nil {
		return err
	}
	if !plainName(string(name)) {
		return os.Remove(file)
	}
	err = os.Symlink(filepath.Join("..", layer, "diff"), filepath.Join(home, "l", string(name)))
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

// plainName tells what the driver makes names of.
func plainName(name string) bool {
	return name != "" && strings.Trim(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") == ""
}
