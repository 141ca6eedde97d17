package streaming

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	"k8s.io/streaming/pkg/httpstream/wsstream"
)

// serveWebSocket serves an exec or attach as the remote command subprotocols
// v4 and v5 have it, in which each message begins with the number of a
// channel, and the older unnumbered one.
func (s *Server) serveWebSocket(w http.ResponseWriter, r *http.Request, o wanted, run command) {
	conn := wsstream.NewConn(webSocketProtocols(o))
	protocol, channels, err := conn.Open(w, r)
	if err != nil {
		s.log.Debug("WebSocket session not begun", "err", err)
		return
	}
	defer conn.Close() //nolint:errcheck // the client learned the outcome by the status
	// An empty message tells the client that the session has begun.
	channels[firstOutput(o)].Write(nil) //nolint:errcheck // reading from the connection tells
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	streams := Streams{TTY: o.tty, Resize: jsonSizes(ctx, channels[remotecommand.StreamResize])}
	if o.stdin {
		streams.In = channels[remotecommand.StreamStdIn]
	}
	if o.stdout {
		streams.Out = channels[remotecommand.StreamStdOut]
	}
	if o.stderr {
		streams.Err = channels[remotecommand.StreamStdErr]
	}
	outcome := run(ctx, streams)
	if text := statusText(protocol, outcome); text != nil {
		channels[remotecommand.StreamErr].Write(text) //nolint:errcheck // the client is gone then
	}
}

func webSocketProtocols(o wanted) map[string]wsstream.ChannelProtocolConfig {
	pick := func(yes bool, kind wsstream.ChannelType) wsstream.ChannelType {
		if yes {
			return kind
		}
		return wsstream.IgnoreChannel
	}
	channels := []wsstream.ChannelType{
		remotecommand.StreamStdIn:  pick(o.stdin, wsstream.ReadChannel),
		remotecommand.StreamStdOut: pick(o.stdout, wsstream.WriteChannel),
		remotecommand.StreamStdErr: pick(o.stderr, wsstream.WriteChannel),
		remotecommand.StreamErr:    wsstream.WriteChannel,
		remotecommand.StreamResize: wsstream.ReadChannel,
	}
	protocols := wsstream.NewDefaultChannelProtocols(channels)
	protocols[remotecommand.StreamProtocolV4Name] = wsstream.ChannelProtocolConfig{Binary: true, Channels: channels}
	protocols[remotecommand.StreamProtocolV5Name] = wsstream.ChannelProtocolConfig{Binary: true, Channels: channels}
	protocols["v4."+wsstream.Base64ChannelWebSocketProtocol] = wsstream.ChannelProtocolConfig{Channels: channels}
	return protocols
}

func firstOutput(o wanted) int {
	switch {
	case o.stdout:
		return remotecommand.StreamStdOut
	case o.stderr:
		return remotecommand.StreamStdErr
	}
	return remotecommand.StreamErr
}

// jsonSizes reads terminal sizes until r or ctx ends; then the channel is closed.
func jsonSizes(ctx context.Context, r io.Reader) <-chan Size {
	out := make(chan Size)
	go func() {
		defer close(out)
		for d := json.NewDecoder(r); ; {
			var s remotecommand.TerminalSize
			if d.Decode(&s) != nil {
				return
			}
			select {
			case out <- Size{Columns: s.Width, Rows: s.Height}:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

// status is the part of a Kubernetes Status that clients read.
type status struct {
	Status  string   `json:"status"`
	Message string   `json:"message,omitempty"`
	Reason  string   `json:"reason,omitempty"`
	Details *details `json:"details,omitempty"`
	Code    int      `json:"code,omitempty"`
}

type details struct {
	Causes []cause `json:"causes"`
}

type cause struct {
	Type    string `json:"reason"`
	Message string `json:"message"`
}

// statusText says how a session ended, as the protocol has it; nil says nothing.
func statusText(protocol string, err error) []byte {
	if !strings.HasPrefix(protocol, "v") { // the oldest protocols know only failures, as plain text
		if err == nil {
			return nil
		}
		return []byte(err.Error())
	}
	st := status{Status: "Success"}
	var exit *ExitError
	switch {
	case errors.As(err, &exit):
		st = status{
			Status:  "Failure",
			Reason:  remotecommand.NonZeroExitCodeReason,
			Message: fmt.Sprintf("command terminated with non-zero exit code: %v", exit),
			Details: &details{[]cause{{remotecommand.ExitCodeCauseType, strconv.Itoa(exit.Code)}}},
		}
	case err != nil:
		st = status{Status: "Failure", Reason: "InternalError", Message: err.Error(), Code: http.StatusInternalServerError}
	}
	text, err := json.Marshal(st)
	if err != nil {
		return nil // strings and numbers always marshal
	}
	return text
}
