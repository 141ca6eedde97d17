package storage

import (
	"archive/tar"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gantry-cri/gantry/internal/errkind"
)

// viewImage has every trick of overlay in its layers.
func viewImage(t *testing.T, s *Store) Image {
	return addImage(t, s, "docker.io/library/view:1",
		layerTar(t,
			dir("etc"), file("etc/passwd", "lower"), file("etc/group", "g1"),
			dir("gone"), file("gone/file", "x"),
			dir("hidden"), file("hidden/old", "x"), file("hidden/kept", "old"),
			dir("merged"), file("merged/a", "a1"), file("merged/b", "b1"),
			file("wasfile", "x"), dir("wasdir"), file("wasdir/f", "x"),
		),
		layerTar(t,
			file("etc/passwd", "upper"), file("etc/.wh.group", ""),
			file(".wh.gone", ""),
			dir("hidden"), file("hidden/.wh..wh..opq", ""), file("hidden/kept", "new"),
			dir("merged"), file("merged/b", "b2"),
			file(".wh.wasfile", ""), dir("wasfile"), file("wasfile/f", "now a dir"),
			file("wasdir", "now a file"),
			link("abs", "/etc/passwd"), link("rel", "etc/../etc/passwd"), link("out", "../../../../etc/passwd"),
			link("loop1", "loop2"), link("loop2", "loop1"), link("dirlink", "/merged"), link("dangling", "/nowhere"),
			entry{name: "fifo", kind: tar.TypeFifo, mode: 0o644},
		))
}

var viewCases = []struct {
	path string
	want string
	err  error // nil: want
	kind errkind.Kind
}{
	{path: "/etc/passwd", want: "upper"},
	{path: "etc/passwd", want: "upper"},
	{path: "/etc/../etc//./passwd", want: "upper"},
	{path: "/../../etc/passwd", want: "upper"},
	{path: "/etc/group", err: fs.ErrNotExist},
	{path: "/gone/file", err: fs.ErrNotExist},
	{path: "/hidden/old", err: fs.ErrNotExist},
	{path: "/hidden/kept", want: "new"},
	{path: "/merged/a", want: "a1"},
	{path: "/merged/b", want: "b2"},
	{path: "/wasfile/f", want: "now a dir"},
	{path: "/wasdir", want: "now a file"},
	{path: "/wasdir/f", err: unix.ENOTDIR},
	{path: "/abs", want: "upper"},
	{path: "/rel", want: "upper"},
	{path: "/out", want: "upper"},
	{path: "/dirlink/a", want: "a1"},
	{path: "/dirlink/../etc/passwd", want: "upper"},
	{path: "/loop1", err: unix.ELOOP},
	{path: "/dangling", err: fs.ErrNotExist},
	{path: "/fifo", kind: errkind.Invalid},
	{path: "/merged", kind: errkind.Invalid},
	{path: "/a\x00b", kind: errkind.Invalid},
	{path: "/" + strings.Repeat("a/", 4000), kind: errkind.Invalid},
}

func TestReadFile(t *testing.T) {
	s := newTest(t)
	r := newRootFS(t, s, viewImage(t, s))
	for range 2 { // the second time from memory
		for _, c := range viewCases {
			body, err := s.ReadFile(r, c.path, 100)
			switch {
			case c.err != nil && !errors.Is(err, c.err):
				t.Errorf("%q: %v, want %v", c.path, err, c.err)
			case c.kind != 0 && errkind.Of(err) != c.kind:
				t.Errorf("%q: %v, want kind %v", c.path, err, c.kind)
			case c.err == nil && c.kind == 0 && (err != nil || string(body) != c.want):
				t.Errorf("%q: %q, %v, want %q", c.path, body, err, c.want)
			}
		}
	}
	if _, err := s.ReadFile(r, "/etc/passwd", 2); errkind.Of(err) != errkind.Exhausted {
		t.Errorf("large file: %v", err)
	}
}

// TestViewAgreesWithKernel mounts the same layers and compares.
func TestViewAgreesWithKernel(t *testing.T) {
	s := newTest(t)
	r := newRootFS(t, s, viewImage(t, s))
	for _, dir := range []string{"/gone/sub", "/wasfile/new", "/dirlink/new", "/hidden/new", "/dangling/x", "/etc/conf.d"} {
		if err := s.EnsureDir(r, dir); err != nil {
			t.Fatal(err)
		}
	}
	script := `mount -t overlay overlay -o lowerdir="$1",upperdir="$2",workdir="$3",redirect_dir=off "$4" || exit 9
cd "$4"; find . \( -type d -printf '%p d %m %U\n' \) -o \( -type f -printf '%p f ' -exec cat {} \; -printf '\n' \) | sort; umount "$4" 2>/dev/null || umount -l "$4"`
	cmd := exec.Command("unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh",
		strings.Join(r.Lower, ":"), r.Upper, r.Work, t.TempDir())
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	lines := 0
	for line := range strings.Lines(string(out)) {
		fields := strings.SplitN(strings.TrimSpace(line), " ", 3)
		if len(fields) < 3 || fields[1] != "f" {
			continue
		}
		lines++
		body, err := s.ReadFile(r, fields[0], 100)
		if err != nil || string(body) != fields[2] {
			t.Errorf("%s: %q, %v; the kernel says %q", fields[0], body, err, fields[2])
		}
	}
	if lines < 5 {
		t.Fatalf("kernel shows %d files: %s", lines, out)
	}
	for _, want := range []string{"./gone/sub d 755 0", "./wasfile/new d", "./merged/new d", "./hidden/new d", "./nowhere/x d", "./etc/conf.d d"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("kernel does not show %q:\n%s", want, out)
		}
	}
	for _, no := range []string{"./gone/file", "./hidden/old"} {
		if strings.Contains(string(out), no) {
			t.Errorf("%q came back:\n%s", no, out)
		}
	}
}

func TestReadFileOfUpper(t *testing.T) {
	s := newTest(t)
	r := newRootFS(t, s, viewImage(t, s))
	if _, err := s.ReadFile(r, "/etc/passwd", 100); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(r.Upper, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(r.Upper, "etc/passwd"), []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	if body, err := s.ReadFile(r, "/etc/passwd", 100); err != nil || string(body) != "mine" {
		t.Errorf("%q, %v", body, err)
	}
	if err := unix.Mknod(filepath.Join(r.Upper, "merged"), unix.S_IFCHR, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := s.ReadFile(r, "/merged/a", 100); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("whiteout in upper: %v", err)
	}
	// A directory of the container that became a link out of the root.
	if err := os.Symlink("/etc", filepath.Join(r.Upper, "escape")); err != nil {
		t.Fatal(err)
	}
	if body, err := s.ReadFile(r, "/escape/passwd", 100); err != nil || string(body) != "mine" {
		t.Errorf("link to /etc: %q, %v", body, err)
	}
	// A whiteout under a name that shall be a directory: nothing comes back.
	if err := s.EnsureDir(r, "/merged"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.ReadFile(r, "/merged/a", 100); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("whiteout replaced by a directory: %v", err)
	}
}

func TestEnsureDirKeepsParents(t *testing.T) {
	s := newTest(t)
	img := addImage(t, s, "docker.io/library/dirs:1", layerTar(t,
		entry{name: "home", kind: tar.TypeDir, mode: 0o1777, uid: 7},
		entry{name: "home/u", kind: tar.TypeDir, mode: 0o700, uid: 1000}, file("file", "")))
	r := newRootFS(t, s, img)
	for range 2 {
		if err := s.EnsureDir(r, "/home/u/work/sub"); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]struct {
		mode uint32
		uid  uint32
	}{"home": {0o1777, 7}, "home/u": {0o700, 1000}, "home/u/work": {0o755, 0}, "home/u/work/sub": {0o755, 0}} {
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(r.Upper, path), &st); err != nil {
			t.Fatal(err)
		}
		if st.Mode&0o7777 != want.mode || st.Uid != want.uid {
			t.Errorf("%s: mode %o uid %d, want %o %d", path, st.Mode&0o7777, st.Uid, want.mode, want.uid)
		}
	}
	if err := s.EnsureDir(r, "/file/x"); errkind.Of(err) != errkind.Invalid {
		t.Errorf("below a file: %v", err)
	}
	if err := s.EnsureDir(r, "/file"); errkind.Of(err) != errkind.Invalid {
		t.Errorf("a file: %v", err)
	}
}
