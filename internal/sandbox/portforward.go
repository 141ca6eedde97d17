package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/gantry-cri/gantry/internal/errkind"
	"github.com/gantry-cri/gantry/internal/network"
)

// dialWait bounds connecting to a port in a pod.
const dialWait = 10 * time.Second

// PortForward connects stream to a TCP port on the loopback interface of the
// pod's network, until the pod's side has sent everything or ctx ends. A client
// that has no more to send ends only its own direction. stream is closed.
func (p *Pod) PortForward(ctx context.Context, port uint16, stream io.ReadWriteCloser) (err error) {
	defer func() { err = errors.Join(err, ignoreClosed(stream.Close())) }()
	if st := p.Status().State; st != Ready {
		return errkind.Errorf(errkind.Precondition, "forward a port of pod %s: it is %s, not ready", p.Record.ID, st)
	}
	conn, err := p.dial(ctx, port)
	if err != nil {
		return fmt.Errorf("forward a port of pod %s: %w", p.Record.ID, err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	go func() {
		if _, err := io.Copy(conn, stream); err == nil {
			conn.(interface{ CloseWrite() error }).CloseWrite() //nolint:errcheck // the other direction tells
			return
		}
		conn.Close() //nolint:errcheck // the client is gone
	}()
	_, err = io.Copy(stream, conn)
	err = errors.Join(ignoreClosed(err), ignoreClosed(conn.Close()))
	if err != nil {
		return fmt.Errorf("forward port %d of pod %s: %w", port, p.Record.ID, err)
	}
	return nil
}

// dial connects to a port in the pod.
func (p *Pod) dial(ctx context.Context, port uint16) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialWait)
	defer cancel()
	switch {
	case p.runtime.OwnNetwork():
		return p.runtime.DialSandbox(ctx, string(p.pauseID()), p.dir, port)
	case p.HostNetwork():
		return network.Dial(ctx, "", port)
	}
	return network.Dial(ctx, p.netns(), port)
}

// ignoreClosed drops the error of using what one of the two sides has closed:
// that is how a session ends.
func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) || errors.Is(err, io.ErrClosedPipe) || errors.Is(err, io.EOF) {
		return nil
	}
	return err
}
