package oci

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// consoleSocket is where a runtime sends the terminal that it has made for a
// process, or connects.
type consoleSocket struct {
	dir      *os.File // holds the socket's path together
	path     string   // as the runtime is told it
	listener *net.UnixListener
}

// listenConsole makes the socket of a terminal.
func listenConsole(dir string) (*consoleSocket, error) { return listenSocket(dir, "tty") }

// listenSocket makes a socket in the directory. Its path goes through this
// process's descriptor of the directory, since that of a socket can have no
// more than 107 bytes.
func listenSocket(dir, kind string) (*consoleSocket, error) {
	d, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, fmt.Errorf("%s socket: %w", kind, err)
	}
	path := fmt.Sprintf("/proc/%d/fd/%d/%s-%.10s", os.Getpid(), d.Fd(), kind, rand.Text())
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s socket in %s: %w", kind, dir, err), d.Close())
	}
	return &consoleSocket{dir: d, path: path, listener: l}, nil
}

// Close removes the socket and ends a receive that is under way.
func (c *consoleSocket) Close() error {
	return errors.Join(c.listener.Close(), c.dir.Close())
}

// receive waits for the terminal's master end, until ctx ends or c is closed.
func (c *consoleSocket) receive(ctx context.Context) (*os.File, error) {
	conn, err := c.accept(ctx)
	if err != nil {
		return nil, fmt.Errorf("console socket: %w", err)
	}
	defer conn.Close() //nolint:errcheck // nothing is written
	// A runtime may connect long before it has a terminal to send; its end ends the wait.
	stopReading := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Now()) }) //nolint:errcheck // closed then
	defer stopReading()
	fd, err := receiveDescriptor(conn)
	if err != nil {
		return nil, fmt.Errorf("console socket: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, errors.Join(fmt.Errorf("terminal: %w", err), unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), filepath.Join(c.path, "terminal")), nil
}

// accept waits for a connection, until ctx ends or c is closed.
func (c *consoleSocket) accept(ctx context.Context) (*net.UnixConn, error) {
	stop := context.AfterFunc(ctx, func() { c.listener.SetDeadline(time.Now()) }) //nolint:errcheck // closed then
	defer stop()
	return c.listener.AcceptUnix()
}

// receiveDescriptor takes the one descriptor that a message brings.
func receiveDescriptor(conn *net.UnixConn) (int, error) {
	name, control := make([]byte, 4096), make([]byte, unix.CmsgSpace(4*4))
	_, n, _, _, err := conn.ReadMsgUnix(name, control)
	if err != nil {
		return -1, err
	}
	messages, err := unix.ParseSocketControlMessage(control[:n])
	if err != nil {
		return -1, err
	}
	var fds []int
	for _, m := range messages {
		if rights, err := unix.ParseUnixRights(&m); err == nil {
			fds = append(fds, rights...)
		}
	}
	if len(fds) != 1 {
		for _, fd := range fds {
			unix.Close(fd) //nolint:errcheck // not wanted
		}
		return -1, fmt.Errorf("the runtime sent %d descriptors instead of one", len(fds))
	}
	unix.CloseOnExec(fds[0])
	return fds[0], nil
}

// resize sets the size of a terminal; failures change nothing that matters.
func resize(master *os.File, s Size) {
	raw, err := master.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: s.Rows, Col: s.Columns})
	})
}
