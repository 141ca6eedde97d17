package streaming

import (
	"context"
	"io"
	"net/http"
	"time"

	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	"k8s.io/streaming/pkg/httpstream/wsstream"
)

// wanted are the streams that a client asked for.
type wanted struct {
	stdin, stdout, stderr, tty bool
}

// noTimeout keeps the library from ending idle sessions: see idle.go.
const noTimeout = 0

// A command is an exec or an attach with its container filled in.
type command func(ctx context.Context, s Streams) error

// serveCommand answers with a handler that connects a client to run. Over
// WebSocket it speaks the protocol itself: the library has no v5, in which the
// client can end its input.
func (s *Server) serveCommand(kind string, o wanted, run command) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		session := s.begin(kind, r)
		defer session.over()
		r = r.WithContext(session.ctx)
		run := func(ctx context.Context, streams Streams) error { return run(ctx, session.streams(streams)) }
		if wsstream.IsWebSocketRequest(r) {
			s.serveWebSocket(w, r, o, run)
			return
		}
		options := &remotecommand.Options{Stdin: o.stdin, Stdout: o.stdout, Stderr: o.stderr, TTY: o.tty}
		if kind == kindExec {
			remotecommand.ServeExec(w, r, spdyCommand(run), "", "", "", nil, options,
				noTimeout, remotecommand.DefaultStreamCreationTimeout, remotecommand.SupportedStreamingProtocols)
			return
		}
		remotecommand.ServeAttach(w, r, spdyCommand(run), "", "", "", options,
			noTimeout, remotecommand.DefaultStreamCreationTimeout, remotecommand.SupportedStreamingProtocols)
	}
}

// spdyCommand speaks the library's interfaces.
type spdyCommand command

func (run spdyCommand) ExecInContainer(ctx context.Context, _, _, _ string, _ []string, in io.Reader, out, stderr io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize, _ time.Duration) error {
	return run.AttachContainer(ctx, "", "", "", in, out, stderr, tty, resize)
}

func (run spdyCommand) AttachContainer(ctx context.Context, _, _, _ string, in io.Reader, out, stderr io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	return run(ctx, Streams{In: in, Out: out, Err: stderr, TTY: tty, Resize: sizes(ctx, resize)})
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
