// Package statefile reads and writes Gantry's records: versioned JSON files
// that are replaced atomically, so that a reader (or the next daemon after a
// crash) sees the old record or the new one and never a part of either.
package statefile

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// MaxSize is the largest record that Read accepts, in bytes. A larger file is
// damaged or not ours.
const MaxSize = 16 << 20

// ErrDamaged is wrapped by Read's error when a record exists but can't be
// understood: truncated, not JSON, or of another version.
var ErrDamaged = errors.New("damaged record")

type envelope struct {
	Version int             `json:"version"`
	Data    json.RawMessage `json:"data"`
}

// Write replaces the record at path with v, mode 0600. The new content is
// written beside it under a temporary name and renamed over it.
// It does not sync to disk: records that must survive a power loss use WriteSync.
func Write(path string, version int, v any) error {
	return write(path, version, v, false)
}

// WriteSync is Write, with the content and the directory entry on stable
// storage when it returns.
func WriteSync(path string, version int, v any) error {
	return write(path, version, v, true)
}

func write(path string, version int, v any, sync bool) (err error) {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	body, err := json.Marshal(envelope{version, data})
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	return replace(path, body, sync)
}

// replace writes body to path+".tmp" and renames it to path. One writer per
// path is assumed: every record has one owner that holds its lock.
func replace(path string, body []byte, sync bool) (err error) {
	tmp := path + ".tmp"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(tmp))
		}
	}()
	_, err = f.Write(body)
	if err == nil && sync {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err = os.Rename(tmp, path); err != nil {
		return err
	}
	if sync {
		return syncDir(filepath.Dir(path))
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Read decodes the record at path into v. The error wraps fs.ErrNotExist when
// there is none, and ErrDamaged when it can't be understood or has another
// version than the one asked for.
func Read(path string, version int, v any) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() || info.Size() > MaxSize {
		return fmt.Errorf("%s: %w: not a regular file of at most %d bytes", path, ErrDamaged, MaxSize)
	}
	body, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var e envelope
	if err := json.Unmarshal(body, &e); err != nil {
		return fmt.Errorf("%s: %w: %v", path, ErrDamaged, err)
	}
	if e.Version != version {
		return fmt.Errorf("%s: %w: version %d, want %d", path, ErrDamaged, e.Version, version)
	}
	if err := json.Unmarshal(e.Data, v); err != nil {
		return fmt.Errorf("%s: %w: %v", path, ErrDamaged, err)
	}
	return nil
}

// Remove deletes the record at path and a temporary left beside it by a
// crash. A record that is not there is no error.
func Remove(path string) error {
	var errs []error
	for _, p := range []string{path, path + ".tmp"} {
		if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
