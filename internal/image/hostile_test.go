package image

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/gantry-cri/gantry/internal/errkind"
)

// prompt is how long the refusal of anything may take on a busy machine.
const prompt = time.Minute

// refused pulls an image that must be refused, and checks that nothing of it
// stays.
func refused(t *testing.T, img testImage, want errkind.Kind, change func(*Options)) {
	t.Helper()
	reg := newFake(t)
	reg.put("app", "1", img)
	conf := withRegistries(t, insecure(reg.host))
	s := newService(t, func(o *Options) {
		conf(o)
		if change != nil {
			change(o)
		}
	})
	start := time.Now()
	_, err := s.Pull(t.Context(), PullRequest{Image: reg.host + "/app:1"})
	if errkind.Of(err) != want {
		t.Errorf("kind %v, want %v: %v", errkind.Of(err), want, err)
	}
	if took := time.Since(start); took > prompt {
		t.Errorf("refused after %s", took)
	}
	t.Log(err)
	s.checkEmpty(t)
}

// checkEmpty checks that a store has nothing in it, not even of what failed.
func (s *testService) checkEmpty(t *testing.T) {
	t.Helper()
	if len(s.List()) != 0 {
		t.Error("an image is listed")
	}
	if layers, err := s.store.Library().Layers(); err != nil || len(layers) != 0 {
		t.Errorf("%d layers, %v", len(layers), err)
	}
	for _, dir := range []string{"staging", "containers/.trash", "damaged", "unsynced", "../run/naming", "tmp/blobs"} {
		deadline := time.Now().Add(prompt) // the trash is emptied in the background
		for {
			left, err := os.ReadDir(filepath.Join(s.dir, "root", dir))
			if err == nil && len(left) == 0 {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("left in %s: %v, %v", dir, left, err)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
}

// nested is the name of a directory so many levels below the root.
func nested(name string, levels int) string { return strings.Repeat(name+"/", levels) }

func TestHostileArchives(t *testing.T) {
	pax := func(name, value string) []member {
		return []member{{name: "a", pax: map[string]string{"SCHILY.xattr." + name: value}}}
	}
	for name, c := range map[string]struct {
		members []member
		want    errkind.Kind
	}{
		"leads up":                 {[]member{{name: "../evil"}}, errkind.Invalid},
		"leads up inside":          {[]member{{name: "a/../../evil"}}, errkind.Invalid},
		"directory leads up":       {[]member{{name: "../", kind: tar.TypeDir}}, errkind.Invalid},
		"root is a link":           {[]member{{name: "./", kind: tar.TypeSymlink, link: "/etc"}}, errkind.Invalid},
		"hard link leads up":       {[]member{{name: "a", kind: tar.TypeLink, link: "../../../etc/passwd"}}, errkind.Invalid},
		"hard link to the node":    {[]member{{name: "a", kind: tar.TypeLink, link: "/etc/passwd"}}, errkind.Invalid},
		"hard link through a link": {[]member{{name: "l", kind: tar.TypeSymlink, link: "/etc"}, {name: "a", kind: tar.TypeLink, link: "l/passwd"}}, errkind.Invalid},
		"hard link to a directory": {[]member{{name: "d", kind: tar.TypeDir}, {name: "a", kind: tar.TypeLink, link: "d"}}, errkind.Invalid},
		"hard link to nothing":     {[]member{{name: "a", kind: tar.TypeLink, link: ""}}, errkind.Invalid},
		"link to nothing":          {[]member{{name: "a", kind: tar.TypeSymlink}}, errkind.Invalid},
		"links in a ring": {[]member{
			{name: "l", kind: tar.TypeSymlink, link: "m"}, {name: "m", kind: tar.TypeSymlink, link: "/l"}, {name: "l/a"},
		}, errkind.Invalid},
		"link to itself":       {[]member{{name: "l", kind: tar.TypeSymlink, link: "l"}, {name: "l/a"}}, errkind.Invalid},
		"below a file":         {[]member{{name: "a"}, {name: "a/b"}}, errkind.Invalid},
		"whiteout leads up":    {[]member{{name: "../.wh.evil"}}, errkind.Invalid},
		"whiteout of dot dot":  {[]member{{name: "a/.wh..."}}, errkind.Invalid},
		"whiteout of dot":      {[]member{{name: "a/.wh.."}}, errkind.Invalid},
		"whiteout of nothing":  {[]member{{name: "a/.wh."}}, errkind.Invalid},
		"whiteout by device":   {[]member{{name: "a", kind: tar.TypeChar}}, errkind.Invalid},
		"whiteout by overflow": {[]member{{name: "a", kind: tar.TypeChar, dev: [2]int64{1 << 12, 0}}}, errkind.Invalid},
		"owner out of range":   {[]member{{name: "a", uid: 1 << 32}}, errkind.Invalid},
		"long name":            {[]member{{name: nested("a", 2500) + "f"}}, errkind.Invalid},
		"long component":       {[]member{{name: strings.Repeat("a", 300)}}, errkind.Invalid},
		"long target":          {[]member{{name: "a", kind: tar.TypeSymlink, link: strings.Repeat("a", 5000)}}, errkind.Invalid},
		"longest target":       {[]member{{name: "a", kind: tar.TypeSymlink, link: strings.Repeat("a", 4096)}}, errkind.Invalid},
		"nested":               {[]member{{name: nested("a", 600) + "f"}}, errkind.Invalid},
		"nested by links": {[]member{
			{name: nested("a", 400), kind: tar.TypeDir},
			{name: "l", kind: tar.TypeSymlink, link: nested("a", 400)},
			{name: "l/" + nested("b", 400), kind: tar.TypeDir},
		}, errkind.Invalid},
		"large xattr":    {pax("user.a", strings.Repeat("a", 100<<10)), errkind.Invalid},
		"bad capability": {pax("security.capability", "nonsense"), errkind.Invalid},
		"8 EiB":          {[]member{{name: "a", body: "a", size: 1<<63 - 1}}, errkind.Exhausted},
		"300 GB":         {[]member{{name: "a", body: "a", size: 300e9}}, errkind.Exhausted},
		"too large in sum": {[]member{
			{name: "a", body: strings.Repeat("a", 600<<10)}, {name: "b", body: strings.Repeat("b", 600<<10)},
		}, errkind.Exhausted},
		"too many":       {make101(), errkind.Exhausted},
		"cut in a file":  {[]member{{name: "a", body: "a", size: 100}}, errkind.Invalid},
		"holes of 4 EiB": {[]member{{name: "a", kind: 'S', size: 1}}, errkind.Exhausted},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var raw []byte
			if c.members[0].kind == 'S' {
				raw = rawHeader('S', "a", 0, func(block []byte) {
					binary256(block[386:398], 1<<62) // one piece, empty, at the end
					binary256(block[398:410], 0)
					binary256(block[483:495], 1<<62)
				})
			} else {
				raw = archiveOf(t, c.members...)
			}
			refused(t, imageOf(t, gzipped(t, raw), digest.FromBytes(raw)), c.want, func(o *Options) {
				o.Limits.LayerEntries = 100
				if name == "too large in sum" {
					o.Limits.LayerBytes = 1 << 20
				}
			})
		})
	}
}

func make101() []member {
	var list []member
	for i := range 101 {
		list = append(list, member{name: fmt.Sprintf("f%d", i)})
	}
	return list
}

// TestHostileStreams: what is wrong is not a member, but what holds them.
func TestHostileStreams(t *testing.T) {
	whole := archiveOf(t, member{name: "a", body: strings.Repeat("a", 5000)})
	repeated := func(piece []byte, times int) func(w io.Writer) {
		return func(w io.Writer) {
			for range times {
				_, err := w.Write(piece)
				must(t, err)
			}
		}
	}
	paxRecord := "12 path=a\x00b\n"
	paxHeader := append(rawHeader('x', "x", int64(len(paxRecord)), nil), append([]byte(paxRecord), make([]byte, 512-len(paxRecord))...)...)
	for name, c := range map[string]struct {
		blob []byte
		want errkind.Kind
	}{
		"no archive":           {[]byte(strings.Repeat("no archive", 1000)), errkind.Invalid},
		"cut archive":          {gzipped(t, whole[:3000]), errkind.Invalid},
		"cut gzip":             {gzipped(t, whole)[:60], errkind.Invalid},
		"garbage after gzip":   {append(gzipped(t, whole), "garbage"...), errkind.Invalid},
		"damaged gzip":         {damagedGzip(t, whole), errkind.Invalid},
		"cut zstd":             {zstdOf(t, repeated(whole, 1))[:60], errkind.Invalid},
		"zstd window of 1 GiB": {[]byte{0x28, 0xb5, 0x2f, 0xfd, 0, 0xa0, 1, 0, 0}, errkind.Invalid},
		"name with a null":     {gzipped(t, append(paxHeader, whole...)), errkind.Invalid},
		"PAX header of 2 GiB":  {gzipped(t, rawHeader('x', "x", 2<<30, nil)), errkind.Invalid},
		"unknown kind":         {gzipped(t, rawHeader('Z', "z", 0, nil)), errkind.Invalid},
		"endless headers":      {zstdOf(t, repeated(append(rawHeader('x', "x", 512, nil), paddedPax()...), 1<<18)), errkind.Exhausted},
		"endless end":          {zstdOf(t, repeated(make([]byte, 1<<20), 1<<10)), errkind.Exhausted},
		"gzip of zeros":        {bytes.Repeat(gzipped(t, make([]byte, 32<<20)), 64), errkind.Exhausted},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			refused(t, imageOf(t, c.blob, digest.FromBytes(whole)), c.want, nil)
		})
	}
}

func damagedGzip(t *testing.T, raw []byte) []byte {
	blob := gzipped(t, raw)
	blob[len(blob)-6] ^= 1 // of the checksum
	return blob
}

// paddedPax is a PAX header's content that fills its block.
func paddedPax() []byte {
	return []byte("512 comment=" + strings.Repeat("c", 512-len("512 comment=")-1) + "\n")
}

// TestHostileLayersTogether: each layer is within its limits, the image is not.
func TestHostileLayersTogether(t *testing.T) {
	var blobs [][]byte
	var diffIDs []digest.Digest
	for i := range 4 {
		raw := archiveOf(t, member{name: fmt.Sprint(i), body: strings.Repeat("a", 300<<10)})
		blobs, diffIDs = append(blobs, gzipped(t, raw)), append(diffIDs, digest.FromBytes(raw))
	}
	img := imageOfLayers(t, blobs, diffIDs)
	for name, change := range map[string]func(*Options){
		"bytes":            func(o *Options) { o.Limits.ImageBytes = 1 << 20 },
		"compressed bytes": func(o *Options) { o.Limits.ImageBytes = 1000 },
		"layers":           func(o *Options) { o.Limits.ImageLayers = 3 },
	} {
		t.Run(name, func(t *testing.T) { refused(t, img, errkind.Exhausted, change) })
	}
}

// TestOddArchives: what is odd, but an image may have it, stays in the layer.
func TestOddArchives(t *testing.T) {
	outside := t.TempDir()
	capability := "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	zeros := string(make([]byte, 16<<20))
	raw := archiveOf(t,
		member{name: "/absolute", body: "1"},
		member{name: "out", kind: tar.TypeSymlink, link: outside},
		member{name: "out/inside", body: "2"},
		member{name: "up", kind: tar.TypeSymlink, link: strings.Repeat("../", 50) + outside[1:]},
		member{name: "up/inside2", body: "3"},
		member{name: "\xff\xfe", body: "4", gnu: true},
		member{name: "setuid", mode: 0o4755, uid: 7},
		member{name: "null", kind: tar.TypeChar, mode: 0o666, dev: [2]int64{1, 3}},
		member{name: "pipe", kind: tar.TypeFifo},
		member{name: "xattrs", pax: map[string]string{
			"SCHILY.xattr.trusted.overlay.opaque": "y", "SCHILY.xattr.trusted.overlay.redirect": "/etc", "SCHILY.xattr.user.overlay.opaque": "y",
			"SCHILY.xattr.security.selinux": "label", "SCHILY.xattr.user.kept": "yes", "SCHILY.xattr.security.capability": capability,
		}},
		member{name: "again", body: "first"},
		member{name: "again", kind: tar.TypeDir, mode: 0o700},
		member{name: "again/below", body: "5"},
		member{name: "again", body: "last"},
		member{name: nested("n", 500), kind: tar.TypeDir, mode: 0o755},
		member{name: "zeros", body: zeros + "end"},
		member{name: "zerosOnly", body: zeros + "\x00\x00"},
		member{name: "d/.wh.gone"},
		member{name: "d/.wh..wh.plnk/9.9", body: "bookkeeping"},
	)
	reg := newFake(t)
	reg.put("app", "1", imageOf(t, gzipped(t, raw), digest.FromBytes(raw)))
	s := newService(t, withRegistries(t, insecure(reg.host)))
	dir := layerFiles(t, s, s.pull(t, reg.host+"/app:1"))

	for name, body := range map[string]string{
		"absolute": "1", filepath.Join(outside, "inside"): "2", filepath.Join(outside, "inside2"): "3", "\xff\xfe": "4",
		"again": "last", "zeros": zeros + "end", "zerosOnly": zeros + "\x00\x00",
	} {
		if have, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(have) != body {
			t.Errorf("%q: %d bytes, want %d: %v", name, len(have), len(body), err)
		}
	}
	if left, err := os.ReadDir(outside); err != nil || len(left) != 0 {
		t.Errorf("outside of the layer: %v, %v", left, err)
	}
	for name, want := range map[string]struct{ mode, uid uint32 }{
		"setuid": {unix.S_IFREG | 0o4755, 7}, "null": {unix.S_IFCHR | 0o666, 0}, "pipe": {unix.S_IFIFO | 0o644, 0},
		nested("n", 500): {unix.S_IFDIR | 0o755, 0}, "d/gone": {unix.S_IFCHR, 0},
	} {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(dir, name), &st); err != nil || st.Mode != want.mode || st.Uid != want.uid {
			t.Errorf("%.20s: mode %o, uid %d, %v", name, st.Mode, st.Uid, err)
		}
	}
	checkXattrs(t, filepath.Join(dir, "xattrs"), "security.capability", "user.kept")
	for _, name := range []string{"zeros", "zerosOnly"} {
		var st unix.Stat_t
		must(t, unix.Stat(filepath.Join(dir, name), &st))
		if st.Blocks*512 > 1<<20 {
			t.Errorf("%s occupies %d bytes", name, st.Blocks*512)
		}
	}
	checkPrivate(t, s)
}

func checkXattrs(t *testing.T, path string, want ...string) {
	t.Helper()
	buf := make([]byte, 4096)
	n, err := unix.Llistxattr(path, buf)
	must(t, err)
	names := map[string]bool{}
	for _, name := range strings.Split(strings.TrimRight(string(buf[:n]), "\x00"), "\x00") {
		names[name] = true
	}
	delete(names, "security.selinux") // the node's own, where it has labels
	for _, name := range want {
		if !names[name] {
			t.Errorf("%s is missing", name)
		}
		delete(names, name)
	}
	if len(names) != 0 {
		t.Errorf("passed: %v", names)
	}
}

// checkPrivate: a user of the node must not get at programs and devices of
// images.
func checkPrivate(t *testing.T, s *testService) {
	t.Helper()
	for _, dir := range []string{"storage/overlay/*", "staging", "damaged", "containers/.trash"} {
		found, err := filepath.Glob(filepath.Join(s.dir, "root", dir))
		if err != nil || len(found) == 0 {
			t.Errorf("no %s: %v", dir, err)
		}
		for _, path := range found {
			if info, err := os.Stat(path); err != nil || info.Mode().Perm()&0o077 != 0 && filepath.Base(path) != "l" {
				t.Errorf("%s: %v, %v", path, info.Mode(), err)
			}
		}
	}
}

// TestDirectoriesWithoutMembers: what the archive leaves to who unpacks it
// costs no descriptor that stays.
func TestDirectoriesWithoutMembers(t *testing.T) {
	var members []member
	for i := range 300 {
		members = append(members, member{name: fmt.Sprintf("a/%d/b/c/file", i)})
	}
	members = append(members, // as of an image whose base has usr/lib and a link to it
		member{name: "lib", kind: tar.TypeSymlink, link: "usr/lib"},
		member{name: "lib/x/file", body: "through a link"},
		member{name: "up/lib", kind: tar.TypeSymlink, link: "../../../opt/lib"},
		member{name: "up/lib/file", body: "through a link"},
	)
	raw := archiveOf(t, members...)
	reg := newFake(t)
	reg.put("app", "1", imageOf(t, gzipped(t, raw), digest.FromBytes(raw)))
	s := newService(t, withRegistries(t, insecure(reg.host)))
	before := descriptors(t)
	dir := layerFiles(t, s, s.pull(t, reg.host+"/app:1"))
	if after := descriptors(t); after > before+100 { // connections, and what other tests have open
		t.Errorf("%d descriptors, %d before", after, before)
	}
	for _, name := range []string{"usr/lib/x/file", "opt/lib/file"} {
		if body, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(body) != "through a link" {
			t.Errorf("%s: %q, %v", name, body, err)
		}
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(list)
}
