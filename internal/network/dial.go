package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/gantry-cri/gantry/internal/errkind"
)

// Dial connects to a TCP port of the loopback interface inside the network
// namespace pinned at netns ("" is the node's): on 127.0.0.1, else on ::1. No
// program is needed in the pod, or on the node.
func Dial(ctx context.Context, netns string, port uint16) (net.Conn, error) {
	if netns == "" {
		return dialLoopback(ctx, port)
	}
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result, 1)
	go func() {
		conn, err := dialInside(ctx, netns, port)
		done <- result{conn, err}
	}()
	r := <-done
	return r.conn, r.err
}

// dialInside needs a goroutine of its own: if its thread can't go back to the
// node's namespace, the goroutine ends locked to it, and the thread with it.
func dialInside(ctx context.Context, netns string, port uint16) (conn net.Conn, err error) {
	pod, err := unix.Open(netns, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("network namespace %s: %w", netns, err)
	}
	defer unix.Close(pod)
	runtime.LockOSThread()
	node, err := unix.Open(threadNetNS, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		runtime.UnlockOSThread()
		return nil, fmt.Errorf("open %s: %w", threadNetNS, err)
	}
	defer unix.Close(node)
	if err := unix.Setns(pod, unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return nil, fmt.Errorf("enter network namespace %s: %w", netns, err)
	}
	conn, err = dialLoopback(ctx, port) // a literal address is dialled on the calling thread
	if back := unix.Setns(node, unix.CLONE_NEWNET); back != nil {
		return conn, err // the thread stays locked and ends with the goroutine
	}
	runtime.UnlockOSThread()
	return conn, err
}

func dialLoopback(ctx context.Context, port uint16) (net.Conn, error) {
	var d net.Dialer
	var errs []error
	for _, host := range []string{"127.0.0.1", "::1"} {
		conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(int(port))))
		if err == nil {
			return conn, nil
		}
		errs = append(errs, err)
	}
	return nil, errkind.Errorf(errkind.Unavailable, "port %d: %w", port, errors.Join(errs...))
}
