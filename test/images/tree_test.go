package images

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"testing"
)

func sample() *Tree {
	t := NewTree()
	t.HardLink("bin/a", "bin/busybox")
	t.File("bin/busybox", 0o755, []byte("program"))
	t.Dir("tmp", 0o1777)
	t.Symlink("var/run", "../run")
	t.File("home/user/file", 0o644, []byte("text"))
	t.Chown("home/user/file", 1000, 1001)
	return t
}

func layer(t *testing.T, tree *Tree) []byte {
	t.Helper()
	var b bytes.Buffer
	n, err := tree.WriteTo(&b)
	if err != nil {
		t.Fatal(err)
	}
	if n > int64(b.Len()) {
		t.Errorf("WriteTo says %d bytes, wrote %d", n, b.Len())
	}
	return b.Bytes()
}

// TestLayersAreTheSame: the same tree is the same bytes, whatever the order of
// a map.
func TestLayersAreTheSame(t *testing.T) {
	first := layer(t, sample())
	for range 20 {
		if !bytes.Equal(first, layer(t, sample())) {
			t.Fatal("two layers of the same tree differ")
		}
	}
}

// TestLayerOrder: a directory comes before what is in it, a hard link after its
// target, and nothing is missing.
func TestLayerOrder(t *testing.T) {
	tr := tar.NewReader(bytes.NewReader(layer(t, sample())))
	seen := map[string]*tar.Header{}
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeLink && seen[h.Linkname] == nil {
			t.Errorf("%s comes before its target", h.Name)
		}
		seen[h.Name] = h
	}
	for _, name := range []string{"bin/", "bin/a", "bin/busybox", "home/", "home/user/", "home/user/file", "tmp/", "var/", "var/run"} {
		if seen[name] == nil {
			t.Errorf("%s is missing", name)
		}
	}
	if h := seen["home/user/file"]; h.Uid != 1000 || h.Gid != 1001 {
		t.Errorf("owner %d:%d", h.Uid, h.Gid)
	}
	if mode := seen["tmp/"].Mode; mode != 0o1777 {
		t.Errorf("mode of tmp %o", mode)
	}
}

func TestRepositoryAndTag(t *testing.T) {
	repository, tag := RepositoryAndTag("docker.io/library/busybox:latest")
	if repository != "library/busybox" || tag != "latest" {
		t.Errorf("got %q, %q", repository, tag)
	}
}

func TestDependencies(t *testing.T) {
	got := dependencies("a\n  Depends: b\n |Depends: c\n  Depends: <virtual>\n    real\nb\n  PreDepends: d\n  Depends: e\n")
	if len(got["a"]) != 1 || got["a"][0] != "b" || len(got["b"]) != 1 || got["b"][0] != "e" {
		t.Errorf("got %v", got)
	}
}
