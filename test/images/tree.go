package images

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"
)

// A Tree is the content of one layer: names relative to the root, without
// leading slash. The zero value is not usable; see NewTree.
type Tree struct {
	entries map[string]entry
}

type entry struct {
	header tar.Header
	data   []byte
}

// NewTree returns an empty layer.
func NewTree() *Tree { return &Tree{entries: map[string]entry{}} }

// Dir adds a directory owned by root; mode may hold the sticky bit (01000).
func (t *Tree) Dir(name string, mode int64) {
	t.add(tar.Header{Name: clean(name), Typeflag: tar.TypeDir, Mode: mode}, nil)
}

// File adds a regular file owned by root; mode may hold the setuid bit (04000).
func (t *Tree) File(name string, mode int64, data []byte) {
	t.add(tar.Header{Name: clean(name), Typeflag: tar.TypeReg, Mode: mode, Size: int64(len(data))}, data)
}

// Symlink adds a symbolic link.
func (t *Tree) Symlink(name, target string) {
	t.add(tar.Header{Name: clean(name), Typeflag: tar.TypeSymlink, Linkname: target, Mode: 0o777}, nil)
}

// HardLink adds another name of a file of the same layer.
func (t *Tree) HardLink(name, target string) {
	t.add(tar.Header{Name: clean(name), Typeflag: tar.TypeLink, Linkname: clean(target), Mode: 0o755}, nil)
}

// Chown changes the owner of an entry that was added before.
func (t *Tree) Chown(name string, uid, gid int) {
	e := t.entries[clean(name)]
	e.header.Uid, e.header.Gid = uid, gid
	t.entries[clean(name)] = e
}

// AddTar adds the members of a tar stream for whose names keep says true.
// Directories that the packages ship in / and that the distribution has merged
// into /usr are moved there.
func (t *Tree) AddTar(r io.Reader, keep func(name string) bool) error {
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read tar: %w", err)
		}
		name := merged(clean(h.Name))
		if name == "" || h.Typeflag == tar.TypeDir || !keep(name) {
			continue
		}
		data, err := io.ReadAll(tr)
		if err != nil {
			return fmt.Errorf("read tar member %s: %w", h.Name, err)
		}
		link := h.Linkname
		if h.Typeflag == tar.TypeLink {
			link = merged(clean(link))
		}
		t.add(tar.Header{Name: name, Typeflag: h.Typeflag, Mode: h.Mode, Size: int64(len(data)), Linkname: link}, data)
	}
}

// WriteTo writes the layer as a tar stream: sorted, with every parent
// directory, and without anything that differs from one build to the next.
func (t *Tree) WriteTo(w io.Writer) (int64, error) {
	t.addParents()
	names := make([]string, 0, len(t.entries))
	for name := range t.entries {
		names = append(names, name)
	}
	slices.SortFunc(names, t.compare)

	counted := &countWriter{w: w}
	tw := tar.NewWriter(counted)
	for _, name := range names {
		e := t.entries[name]
		e.header.ModTime = time.Unix(0, 0)
		if e.header.Typeflag == tar.TypeDir {
			e.header.Name += "/"
		}
		if err := tw.WriteHeader(&e.header); err != nil {
			return counted.n, fmt.Errorf("write layer member %s: %w", name, err)
		}
		if _, err := tw.Write(e.data); err != nil {
			return counted.n, fmt.Errorf("write layer member %s: %w", name, err)
		}
	}
	return counted.n, tw.Close()
}

// compare sorts by name, hard links after everything else: their target must
// come first.
func (t *Tree) compare(a, b string) int {
	la := t.entries[a].header.Typeflag == tar.TypeLink
	lb := t.entries[b].header.Typeflag == tar.TypeLink
	switch {
	case la == lb:
		return strings.Compare(a, b)
	case la:
		return 1
	default:
		return -1
	}
}

func (t *Tree) add(h tar.Header, data []byte) {
	t.entries[h.Name] = entry{header: h, data: data}
}

func (t *Tree) addParents() {
	for name := range t.entries {
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			if _, ok := t.entries[dir]; !ok {
				t.Dir(dir, 0o755)
			}
		}
	}
}

func clean(name string) string {
	return strings.TrimPrefix(path.Clean("/"+name), "/")
}

func merged(name string) string {
	for _, dir := range mergedDirs() {
		if strings.HasPrefix(name, dir+"/") {
			return "usr/" + name
		}
	}
	return name
}

// mergedDirs are the directories that exist in / as links into /usr only.
func mergedDirs() []string { return []string{"bin", "sbin", "lib", "lib64"} }

type countWriter struct {
	w io.Writer
	n int64
}

func (c *countWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
