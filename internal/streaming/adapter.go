package streaming

import (
	"context"
	"fmt"
	"io"

	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
)

// adapter speaks the library's interface and hands on to a Backend.
type adapter struct{ backend Backend }

func (a adapter) Exec(ctx context.Context, container string, cmd []string, in io.Reader, out, stderr io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	return a.backend.Exec(ctx, container, cmd, Streams{In: in, Out: out, Err: stderr, TTY: tty, Resize: sizes(ctx, resize)})
}

func (a adapter) Attach(ctx context.Context, container string, in io.Reader, out, stderr io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	return a.backend.Attach(ctx, container, Streams{In: in, Out: out, Err: stderr, TTY: tty, Resize: sizes(ctx, resize)})
}

func (a adapter) PortForward(ctx context.Context, pod string, port int32, stream io.ReadWriteCloser) error {
	if port <= 0 || port > 65535 {
		return fmt.Errorf("port %d is not between 1 and 65535", port)
	}
	return a.backend.PortForward(ctx, pod, uint16(port), stream)
}

// sizes passes terminal sizes on until in is closed or ctx ends; then the
// channel is closed.
func sizes(ctx context.Context, in <-chan remotecommand.TerminalSize) <-chan Size {
	if in == nil {
		return nil
	}
	out := make(chan Size)
	go func() {
		defer close(out)
		for {
			select {
			case s, ok := <-in:
				if !ok {
					return
				}
				select {
				case out <- Size{Columns: s.Width, Rows: s.Height}:
				case <-ctx.Done():
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}
