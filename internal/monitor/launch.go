package monitor

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// socketName is the monitor's socket in its pod's directory.
const socketName = "monitor.sock"

// LaunchOptions says what a monitor is started with.
type LaunchOptions struct {
	// Program is the path of gantry-monitor.
	Program string
	// Dir is the pod's directory: the monitor works in it and listens there.
	Dir string
	// Cgroups are the cgroup directories that the monitor moves itself into,
	// after it is ready. On cgroup v1 each costs the kernel 10 ms and more, in
	// which no process of the node can fork: name only the hierarchies that count.
	Cgroups []string
}

// Launch starts a monitor and connects to it.
//
// The monitor is no child of this process and outlives it. One that nobody
// connects to and that has no containers ends by itself after a minute.
func Launch(ctx context.Context, o LaunchOptions, h Handler) (*Client, error) {
	var words bytes.Buffer
	cmd := exec.CommandContext(ctx, o.Program, o.Cgroups...)
	cmd.Dir = o.Dir
	cmd.Env = environment()
	cmd.Stderr = &words
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Run(); err != nil {
		if text := strings.TrimSpace(words.String()); text != "" {
			err = fmt.Errorf("%w: %s", err, text)
		}
		return nil, fmt.Errorf("launch monitor in %s: %w", o.Dir, err)
	}
	return Connect(ctx, o.Dir, h)
}

// environment is what monitors, and so the runtimes, are started with. It
// stays in each monitor's memory, so it is short.
func environment() []string {
	env := []string{"HOME=/root"}
	for _, name := range []string{"PATH", "XDG_RUNTIME_DIR", "TMPDIR"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return env
}

// dial opens a connection to the monitor in dir.
func dial(ctx context.Context, dir string) (*net.UnixConn, error) {
	// A socket's address has room for 107 bytes, which a pod's directory can
	// exceed: so the path goes through a descriptor.
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(fd)
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unixpacket", fmt.Sprintf("/proc/self/fd/%d/%s", fd, socketName))
	if err != nil {
		return nil, err
	}
	return conn.(*net.UnixConn), nil
}
