package kubelet

import (
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/websocket"
)

// dial opens a WebSocket to the kubelet's API.
func (n *node) dial(t *testing.T, path, protocol string) *websocket.Conn {
	t.Helper()
	config, err := websocket.NewConfig(fmt.Sprintf("wss://127.0.0.1:%d%s", n.port, path), "http://localhost")
	must(t, err)
	config.Protocol = []string{protocol}
	config.TlsConfig = &tls.Config{InsecureSkipVerify: true} // its certificate is its own
	ws, err := config.DialContext(t.Context())
	if err != nil {
		t.Fatalf("dial %s: %v", path, err)
	}
	t.Cleanup(func() { ws.Close() })
	must(t, ws.SetDeadline(time.Now().Add(2*time.Minute)))
	return ws
}

// session runs a command, sends input, and returns what came on each channel:
// https://kubernetes.io/docs/reference/generated/kubernetes-api (v4.channel.k8s.io)
func (n *node) session(t *testing.T, path, input string) (out, status string) {
	t.Helper()
	ws := n.dial(t, path, "v4.channel.k8s.io")
	if input != "" {
		must(t, websocket.Message.Send(ws, append([]byte{0}, input...)))
	}
	var got strings.Builder
	for {
		var m []byte
		if err := websocket.Message.Receive(ws, &m); err != nil {
			t.Fatalf("%s: after %q: %v", path, got.String(), err)
		}
		switch {
		case len(m) < 2:
		case m[0] == 1 || m[0] == 2:
			got.Write(m[1:])
		case m[0] == 3:
			return got.String(), string(m[1:])
		}
	}
}

func execPath(name, container, script, options string) string {
	return fmt.Sprintf("/exec/default/%s-%s/%s?command=sh&command=-c&command=%s&output=1&error=1%s", name, nodeName, container, url.QueryEscape(script), options)
}

// exec runs a script in a container, which has to end well, through the kubelet.
func (n *node) exec(t *testing.T, name, container, script string) string {
	t.Helper()
	out, status := n.session(t, execPath(name, container, script, ""), "")
	if !strings.Contains(status, `"Success"`) {
		t.Fatalf("exec %q in %s: %s, %q", script, name, status, out)
	}
	return out
}

// testExec: commands and attach, with input, with exit codes, on a terminal.
func testExec(t *testing.T, n *node) {
	n.add(t, "exec", `
  containers:
  - {name: main, image: busybox, command: [sleep, '1000']}
  - {name: reader, image: busybox, stdin: true, command: [sh, -c, 'while read x; do echo got $x; done']}
`)
	n.untilReady(t, "exec")
	if got := n.exec(t, "exec", "main", "echo out; echo err >&2"); !strings.Contains(got, "out\n") || !strings.Contains(got, "err\n") {
		t.Errorf("got %q", got)
	}
	if _, status := n.session(t, execPath("exec", "main", "exit 3", ""), ""); !strings.Contains(status, `"NonZeroExitCode"`) || !strings.Contains(status, `"3"`) {
		t.Errorf("a command that fails: %s", status)
	}
	if got, _ := n.session(t, execPath("exec", "main", "read x; echo got $x", "&input=1"), "word\n"); got != "got word\n" {
		t.Errorf("with input: %q", got)
	}
	if got, _ := n.session(t, execPath("exec", "main", "tty; stty size", "&tty=1&error=0&input=1"), ""); !strings.Contains(got, "/dev/pts/0") {
		t.Errorf("on a terminal: %q", got)
	}
	ws := n.dial(t, fmt.Sprintf("/attach/default/exec-%s/reader?input=1&output=1&error=1", nodeName), "v4.channel.k8s.io")
	must(t, websocket.Message.Send(ws, append([]byte{0}, "hello\n"...)))
	for seen := ""; !strings.Contains(seen, "got hello\n"); {
		var m []byte
		if err := websocket.Message.Receive(ws, &m); err != nil {
			t.Fatalf("attach: after %q: %v", seen, err)
		}
		if len(m) > 1 && m[0] == 1 {
			seen += string(m[1:])
		}
	}
}

// testPortForward: a request through the kubelet to a server in a pod.
func testPortForward(t *testing.T, n *node) {
	n.add(t, "forward", `
  containers: [{name: web, image: nginx}]
`)
	n.untilReady(t, "forward")
	n.wait(t, "the server to listen", func() error {
		return n.forwardOnce(t)
	})
}

func (n *node) forwardOnce(t *testing.T) error {
	ws := n.dial(t, fmt.Sprintf("/portForward/default/forward-%s?port=80", nodeName), "v4.channel.k8s.io")
	defer ws.Close()
	sent := false
	for seen := ""; ; {
		var m []byte
		if err := websocket.Message.Receive(ws, &m); err != nil {
			return fmt.Errorf("after %q: %w", seen, err)
		}
		switch {
		case len(m) == 3 && m[0] == 0 && !sent: // the port, which opens the stream
			if port := binary.LittleEndian.Uint16(m[1:]); port != 80 {
				t.Fatalf("the port is %d", port)
			}
			must(t, websocket.Message.Send(ws, append([]byte{0}, "GET / HTTP/1.0\r\n\r\n"...)))
			sent = true
		case len(m) > 1 && m[0] == 0:
			if seen += string(m[1:]); strings.Contains(strings.ToLower(seen), "welcome") {
				return nil
			}
		case len(m) > 3 && m[0] == 1:
			return fmt.Errorf("the kubelet says %q", m[1:])
		}
	}
}
