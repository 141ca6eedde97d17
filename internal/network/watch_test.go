package network

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// becomes waits until the network for new pods is name, or for "" until Ready's
// error has all the words.
func becomes(t *testing.T, m *Manager, name string, words ...string) {
	t.Helper()
	eventually(t, "network "+name+" "+strings.Join(words, " "), func() bool {
		err := m.Ready()
		if name != "" {
			return err == nil && m.Status().Network == name
		}
		for _, w := range words {
			if err == nil || !strings.Contains(err.Error(), w) {
				return false
			}
		}
		return true
	})
}

func named(name string) object {
	return object{"cniVersion": "1.0.0", "name": name, "plugins": []any{object{"type": "fake"}}}
}

func TestWatch(t *testing.T) {
	b := newBed(t)
	b.fake()
	m := b.manager()
	dir := b.opts.ConfDir
	becomes(t, m, "", "no CNI network in "+dir)

	b.conf("50.conflist", named("fifty"))
	becomes(t, m, "fifty")
	b.conf("40.conf", object{"cniVersion": "1.0.0", "name": "forty", "type": "fake"})
	becomes(t, m, "forty")
	b.conf("30.txt", named("thirty"))
	b.conf("20.conflist", `{"name": "broken", "plugins": [`)
	eventually(t, "the broken file is told", func() bool {
		s := m.Status()
		return len(s.Problems) == 1 && strings.HasPrefix(s.Problems[0], "20.conflist: ") && s.Network == "forty"
	})
	b.conf("20.conflist", named("twenty"))
	becomes(t, m, "twenty")
	b.conf("20.conflist", nil)
	b.conf("40.conf", nil)
	becomes(t, m, "fifty")
	b.conf("50.conflist", `{"name": "x"}`)
	becomes(t, m, "", "no usable CNI network in "+dir, "50.conflist: ", "plugin")

	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	becomes(t, m, "", "directory "+dir+" does not exist")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	becomes(t, m, "", "no CNI network in "+dir)
	b.conf("10.conflist", named("ten"))
	becomes(t, m, "ten")

	replacement := filepath.Join(b.dir, "replacement")
	if err := os.Rename(dir, dir+".old"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(replacement, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(replacement, dir); err != nil {
		t.Fatal(err)
	}
	b.conf("11.conflist", named("eleven"))
	becomes(t, m, "eleven")
	b.conf("11.conflist", named("twelve")) // through the link
	becomes(t, m, "twelve")
}

// TestConfigure: another directory's network is the one of new pods when
// Configure returns, and is watched from then on; plugins are looked for in the
// new directories.
func TestConfigure(t *testing.T) {
	b := newBed(t)
	b.fake()
	m := b.manager()
	b.conf("10.conflist", named("ten"))
	becomes(t, m, "ten")
	old := b.opts.ConfDir
	b.opts.ConfDir = filepath.Join(b.dir, "other.d")
	if err := os.Mkdir(b.opts.ConfDir, 0o755); err != nil {
		t.Fatal(err)
	}
	b.conf("20.conflist", named("twenty"))
	m.Configure(b.opts.Settings)
	if s := m.Status(); s.Network != "twenty" || s.ConfFile != filepath.Join(b.opts.ConfDir, "20.conflist") || m.Ready() != nil {
		t.Errorf("after Configure: %+v, %v", s, m.Ready())
	}
	b.conf("15.conflist", named("fifteen"))
	becomes(t, m, "fifteen")
	if err := os.RemoveAll(old); err != nil { // nobody looks there any more
		t.Fatal(err)
	}
	b.conf("15.conflist", nil)
	becomes(t, m, "twenty")

	with := b.opts.Settings
	with.BinDirs = []string{filepath.Join(b.dir, "nothing")}
	m.Configure(with)
	if err := m.Ready(); err == nil || !strings.Contains(err.Error(), with.BinDirs[0]) {
		t.Errorf("without plugins: %v", err)
	}
	m.Configure(b.opts.Settings)
	m.Configure(b.opts.Settings)
	if err := m.Ready(); err != nil {
		t.Error(err)
	}
}

func TestWatchBeforeAnyDirectoryExists(t *testing.T) {
	b := newBed(t)
	b.fake()
	top := filepath.Join(b.dir, "a")
	b.opts.ConfDir = filepath.Join(top, "b", "c")
	m := b.manager()
	becomes(t, m, "", "does not exist")
	if err := os.MkdirAll(b.opts.ConfDir, 0o755); err != nil {
		t.Fatal(err)
	}
	b.conf("10.conflist", named("ten"))
	becomes(t, m, "ten")
	if err := os.RemoveAll(top); err != nil {
		t.Fatal(err)
	}
	becomes(t, m, "", "does not exist")
}

// TestPluginsInFiles: a list can have its plugins in files of a directory with
// its name; the pinned configuration has them too.
func TestPluginsInFiles(t *testing.T) {
	b := newBed(t)
	b.fake()
	m := b.manager()
	sub := filepath.Join(b.opts.ConfDir, "parts")
	if err := os.Mkdir(sub, 0o755); err != nil {
		t.Fatal(err)
	}
	b.conf("10.conflist", object{"cniVersion": "1.1.0", "name": "parts", "plugins": []any{object{"type": "fake"}}})
	becomes(t, m, "parts")
	b.write(filepath.Join(sub, "1.conf"), `{"type": "fake", "extra": true}`, 0o644)
	eventually(t, "the second plugin", func() bool {
		n := m.scan.Load().network
		return n != nil && len(n.list.Plugins) == 2 && strings.Contains(n.conf, `"extra":true`)
	})
}
