package storage

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// Staged is an unpacked layer that the store does not know of yet. Its owner
// either commits it with CommitLayers or discards it.
type Staged struct {
	dir      string // what becomes the layer's directory
	rootSeen bool
	print    fingerprint
	usage    Usage
	trash    *trashCan
}

// Stage unpacks the archive that r reads, uncompressed, to r's end. Any number
// may do so at the same time. Kinds: Invalid for what is no decent archive,
// Exhausted for one beyond the limits. Nothing stays after an error.
func (s *Store) Stage(ctx context.Context, r io.Reader, limits Limits) (_ *Staged, err error) {
	dir, err := os.MkdirTemp(s.stagingDir(), "layer-")
	if err != nil {
		return nil, fmt.Errorf("stage layer: %w", err)
	}
	l := &Staged{dir: dir, trash: &s.trash}
	defer func() {
		if err != nil {
			l.Discard()
		}
	}()
	if l.rootSeen, err = unpackLayer(ctx, r, dir, limits); err != nil {
		return nil, err
	}
	if l.print, l.usage, err = survey(dir); err != nil {
		return nil, err
	}
	return l, nil
}

// Discard throws the layer away, unless it was committed.
func (l *Staged) Discard() {
	if l.dir == "" {
		return
	}
	if err := l.trash.move(l.dir); err != nil {
		l.trash.log.Warn("staged layer not removed, tried again at the next start", "dir", l.dir, "err", err)
	}
	l.dir = ""
}

// settleRoot gives the layer's root the attributes of the layer below where
// the archive had none; like is the directory that the driver made.
func (l *Staged) settleRoot(like string) error {
	if l.rootSeen {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Stat(like, &st); err != nil {
		return fmt.Errorf("stat %s: %w", like, err)
	}
	if err := os.Chown(l.dir, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if err := unix.Chmod(l.dir, st.Mode&0o7777); err != nil {
		return fmt.Errorf("chmod %s: %w", l.dir, err)
	}
	return nil
}

// ChainIDs are the ids that the store gives layers with the given digests of
// their uncompressed archives, bottom first: each depends on those below. They
// are those of other tools that use the same library.
func ChainIDs(diffIDs []digest.Digest) []string {
	ids := make([]string, 0, len(diffIDs))
	parent := ""
	for _, d := range diffIDs {
		id := d.Encoded()
		if parent != "" {
			id = digest.SHA256.FromString(parent + "+" + d.Encoded()).Encoded()
		}
		ids = append(ids, id)
		parent = id
	}
	return ids
}

// HealthyLayer reports whether the store has a layer whose files are all
// there, as they were unpacked: names, sizes, owners, modes and times.
func (s *Store) HealthyLayer(layerID string) bool {
	rec, err := s.lib.Layer(layerID)
	if err != nil {
		return false
	}
	dir, err := s.layerDir(layerID)
	if err != nil {
		return false
	}
	shape, shapeErr := shapeOf(dir) // before the rest: what changes meanwhile is seen next time
	want := parseNotes(rec.Metadata).Fingerprint
	if want == (fingerprint{}) { // unpacked by another tool
		_, err := os.Stat(dir)
		return err == nil
	}
	have, _, err := survey(dir)
	if err != nil || have != want {
		s.log.Warn("stored layer is damaged, the next pull fetches it again", "layer", layerID, "dir", dir, "err", err)
		s.shapes.forget(layerID)
		return false
	}
	if shapeErr == nil {
		s.shapes.note(layerID, shape)
	}
	return true
}

// layerDir is where the driver keeps a layer's files.
func (s *Store) layerDir(layerID string) (string, error) {
	driver, err := s.lib.GraphDriver()
	if err != nil {
		return "", err
	}
	meta, err := driver.Metadata(layerID)
	if err != nil {
		return "", fmt.Errorf("layer %s: %w", layerID, err)
	}
	return meta["UpperDir"], nil
}

func (s *Store) stagingDir() string { return filepath.Join(s.root, "staging") }

// emptyStaging throws away what an earlier process was unpacking.
func (s *Store) emptyStaging() error {
	entries, err := os.ReadDir(s.stagingDir())
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := s.trash.move(filepath.Join(s.stagingDir(), e.Name())); err != nil {
			return err
		}
	}
	return nil
}
