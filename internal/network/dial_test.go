package network

import (
	"context"
	"io"
	"net"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestDialReachesTheNamespace serves on each loopback address inside a
// namespace, where nothing of the node is in the way.
func TestDialReachesTheNamespace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "netns")
	if err := CreateNetNS(path); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := RemoveNetNS(path); err != nil {
			t.Error(err)
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		l := listenInside(t, path, address)
		port := uint16(l.Addr().(*net.TCPAddr).Port)
		go func() {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			io.WriteString(c, "inside")
		}()
		conn, err := Dial(ctx, path, port)
		if err != nil {
			t.Fatalf("%s: %v", address, err)
		}
		if text, err := io.ReadAll(conn); err != nil || string(text) != "inside" {
			t.Errorf("%s: %q, %v", address, text, err)
		}
		conn.Close()
		l.Close()
		if _, err := Dial(ctx, "", port); err == nil {
			t.Errorf("%s: reached from the node's namespace", address)
		}
	}
	if _, err := Dial(ctx, filepath.Join(t.TempDir(), "none"), 1); err == nil {
		t.Error("dialled in no namespace")
	}
}

func listenInside(t *testing.T, netns, address string) net.Listener {
	t.Helper()
	type result struct {
		l   net.Listener
		err error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		fd, err := unix.Open(netns, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			err = unix.Setns(fd, unix.CLONE_NEWNET)
		}
		var l net.Listener
		if err == nil {
			l, err = net.Listen("tcp", address)
		}
		done <- result{l, err}
	}()
	r := <-done
	if r.err != nil {
		t.Fatal(r.err)
	}
	return r.l
}
