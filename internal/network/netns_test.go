package network

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

func TestNetNS(t *testing.T) {
	path := filepath.Join(t.TempDir(), "netns")
	before := threadNamespaces(t)
	if err := CreateNetNS(path); err != nil {
		t.Fatal(err)
	}
	if err := CreateNetNS(path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second time: have error %v, want one that wraps fs.ErrExist", err)
	}
	err := insideNetNS(path, func() error {
		lo, err := net.InterfaceByName("lo")
		if err != nil {
			return err
		}
		if lo.Flags&net.FlagUp == 0 {
			t.Error("lo is down")
		}
		all, err := net.Interfaces()
		if len(all) != 1 {
			t.Errorf("have the interfaces %v, want lo alone", all)
		}
		for _, addr := range []string{"127.0.0.1:0", "[::1]:0"} {
			l, err := net.Listen("tcp", addr)
			if err != nil {
				return err
			}
			if err := l.Close(); err != nil {
				return err
			}
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := RemoveNetNS(path); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file is still there: %v", err)
	}
	noThreadsLeft(t, before)
}

func TestCreateNetNSAfterACrash(t *testing.T) {
	path := filepath.Join(t.TempDir(), "netns")
	if err := os.WriteFile(path, nil, 0o444); err != nil {
		t.Fatal(err)
	}
	if isNetNS(path) {
		t.Error("a plain file is taken for a namespace")
	}
	if err := CreateNetNS(path); err != nil {
		t.Fatal(err)
	}
	if !isNetNS(path) {
		t.Error("no namespace was pinned")
	}
	if err := unix.Mount(path, path, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	if err := RemoveNetNS(path); err != nil { // both mounts
		t.Fatal(err)
	}
	if err := CreateNetNS(filepath.Join(path, "no", "dir")); err == nil {
		t.Error("a directory that does not exist: no error")
	}
}

func TestManyNetNSAtOnce(t *testing.T) {
	dir := t.TempDir()
	before := threadNamespaces(t)
	var all sync.WaitGroup
	for i := range 32 {
		all.Go(func() {
			path := filepath.Join(dir, string(rune('a'+i)))
			if err := CreateNetNS(path); err != nil {
				t.Error(err)
			}
			if err := RemoveNetNS(path); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	noThreadsLeft(t, before)
}

// noThreadsLeft fails the test if threads stay in other namespaces than before.
func noThreadsLeft(t *testing.T, before map[string]bool) {
	t.Helper()
	for ns := range threadNamespaces(t) {
		if !before[ns] {
			t.Errorf("a thread was left in %s", ns)
		}
	}
}

// threadNamespaces are the network namespaces that threads of this process are in.
func threadNamespaces(t *testing.T) map[string]bool {
	t.Helper()
	links, err := filepath.Glob("/proc/self/task/*/ns/net")
	if err != nil || len(links) == 0 {
		t.Fatal("no threads: ", err)
	}
	out := map[string]bool{}
	for _, link := range links {
		if ns, err := os.Readlink(link); err == nil { // else the thread has ended
			out[ns] = true
		}
	}
	return out
}

func BenchmarkNetNS(b *testing.B) {
	path := filepath.Join(b.TempDir(), "netns")
	for b.Loop() {
		if err := CreateNetNS(path); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := RemoveNetNS(path); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}
