package integration

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/websocket"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/test/testenv"
)

type podSandboxConfig = *runtimeapi.PodSandboxConfig

func nodeNetwork() *runtimeapi.LinuxSandboxSecurityContext {
	return &runtimeapi.LinuxSandboxSecurityContext{
		NamespaceOptions: &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE},
	}
}

func containerOnNodeNetwork() *runtimeapi.LinuxContainerSecurityContext {
	return &runtimeapi.LinuxContainerSecurityContext{
		NamespaceOptions: &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE},
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// streams are what a client of exec or attach asks for.
type streams struct{ stdin, stdout, stderr, tty bool }

// A client is one end of an exec or attach session by WebSocket (v5).
type client struct {
	t  *testing.T
	ws *websocket.Conn
}

// Channels of the protocol.
const (
	chanOut    = 1
	chanErr    = 2
	chanStatus = 3
)

func attachURL(t *testing.T, env *testenv.Env, container string, s streams) string {
	t.Helper()
	resp, err := env.Runtime.Attach(env.Context(), &runtimeapi.AttachRequest{
		ContainerId: container, Stdin: s.stdin, Stdout: s.stdout, Stderr: s.stderr, Tty: s.tty,
	})
	if err != nil {
		t.Fatalf("Attach: %v", err)
	}
	return resp.Url
}

func attachClient(t *testing.T, env *testenv.Env, container string, s streams) *client {
	t.Helper()
	return dial(t, attachURL(t, env, container, s), nil)
}

func dial(t *testing.T, url string, trust *x509.CertPool) *client {
	t.Helper()
	config, err := websocket.NewConfig(strings.Replace(url, "http", "ws", 1), "http://localhost")
	if err != nil {
		t.Fatal(err)
	}
	config.Protocol = []string{"v5.channel.k8s.io"}
	config.TlsConfig = &tls.Config{RootCAs: trust}
	ws, err := config.DialContext(t.Context())
	if err != nil {
		t.Fatalf("dial %s: %v", url, err)
	}
	t.Cleanup(func() { ws.Close() })
	c := &client{t: t, ws: ws}
	// The first message, an empty one, says that the session has begun.
	if _, _, err := c.next(); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *client) send(channel byte, text string) {
	c.t.Helper()
	if err := websocket.Message.Send(c.ws, append([]byte{channel}, text...)); err != nil {
		c.t.Fatal(err)
	}
}

// next returns the next message and its channel.
func (c *client) next() (channel byte, data []byte, err error) {
	var m []byte
	if err := c.ws.SetReadDeadline(time.Now().Add(60 * time.Second)); err != nil {
		return 0, nil, err
	}
	if err := websocket.Message.Receive(c.ws, &m); err != nil {
		return 0, nil, err
	}
	if len(m) == 0 {
		return 0, nil, errors.New("a message without a channel")
	}
	return m[0], m[1:], nil
}

// finish reads to the session's end and returns, by channel, what came.
func (c *client) finish() map[byte]string {
	c.t.Helper()
	got := map[byte]*strings.Builder{}
	for {
		channel, data, err := c.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			c.t.Errorf("the session broke: %v", err)
			break
		}
		if got[channel] == nil {
			got[channel] = &strings.Builder{}
		}
		got[channel].Write(data)
		if channel == chanStatus && len(data) > 0 {
			break
		}
	}
	out := map[byte]string{}
	for channel, b := range got {
		out[channel] = b.String()
	}
	return out
}

// expect reads until stdout has brought text.
func (c *client) expect(text string) {
	c.t.Helper()
	var seen strings.Builder
	for !strings.Contains(seen.String(), text) {
		channel, data, err := c.next()
		if err != nil {
			c.t.Fatalf("waited for %q: %v after %q", text, err, seen.String())
		}
		if channel == chanOut {
			seen.Write(data)
		}
	}
}

// rotate does what the kubelet does to a log that is large.
func rotate(t *testing.T, env *testenv.Env, container, file, to string) {
	t.Helper()
	if err := os.Rename(file, to); err != nil {
		t.Fatal(err)
	}
	reopen(t, env, container)
}

func reopen(t *testing.T, env *testenv.Env, container string) {
	t.Helper()
	_, err := env.Runtime.ReopenContainerLog(env.Context(), &runtimeapi.ReopenContainerLogRequest{ContainerId: container})
	if err != nil {
		t.Fatalf("ReopenContainerLog: %v", err)
	}
}

// TestStreamingTLS: with a certificate configured sessions are served by TLS
// only, and only to who trusts it.
func TestStreamingTLS(t *testing.T) {
	dir := t.TempDir()
	cert, key, trust := certificate(t, dir)
	o := testenv.Options{Config: fmt.Sprintf("stream_tls_cert = %q\nstream_tls_key = %q\n", cert, key)}
	eachWith(t, o, func(t *testing.T, env *testenv.Env) {
		notForPeers(t)
		env.Pull(testenv.Busybox)
		_, id := runIn(env, env.PodConfig("pod"), "main")
		resp, err := env.Runtime.Exec(env.Context(), &runtimeapi.ExecRequest{
			ContainerId: id, Cmd: []string{"cat"}, Stdin: true, Stdout: true,
		})
		if err != nil {
			t.Fatal(err)
		}
		wantContains(t, "URL", resp.Url, "https://")
		address := strings.Split(resp.Url, "/")[2]
		if conn, err := tls.Dial("tcp", address, &tls.Config{}); err == nil {
			conn.Close()
			t.Error("a client that does not trust the certificate is connected")
		}
		if body, err := get("http://" + address); err == nil && !strings.Contains(body, "HTTPS") {
			t.Errorf("plain HTTP is answered with %q", body)
		}
		c := dial(t, resp.Url, trust)
		data := strings.Repeat("over TLS\n", 100000)
		go func() {
			for i := 0; i < len(data); i += 30000 {
				c.send(0, data[i:min(len(data), i+30000)])
			}
			c.send(255, "\x00") // no more input
		}()
		got := c.finish()
		if got[chanOut] != data {
			t.Errorf("%d bytes came back of %d", len(got[chanOut]), len(data))
		}
		wantContains(t, "status", got[chanStatus], "Success")

		args := []string{"exec", "--tls-ca", cert, "--tls-cert", cert, "--tls-key", key, id, "echo", "by crictl"}
		x := crictlTTY(t, env, args...)
		wantEqual(t, "exit code of crictl", x.wait(), 0)
		wantContains(t, "crictl by TLS", x.text(), "by crictl")
	})
}

// TestAttachBeforeStart: a client that is attached to a created container gets
// everything from its first byte on.
func TestAttachBeforeStart(t *testing.T) {
	withPod(t, func(t *testing.T, env *testenv.Env, pod string, podConfig podSandboxConfig) {
		config := env.ContainerConfig("main", "echo first; cat; echo err >&2; exit 5")
		config.Stdin, config.StdinOnce = true, true
		id := env.Create(pod, config, podConfig)
		c := attachClient(t, env, id, streams{stdin: true, stdout: true, stderr: true})
		c.send(0, "typed early\n")
		c.send(255, "\x00")
		env.Start(id)
		got := c.finish()
		wantEqual(t, "stdout", got[chanOut], "first\ntyped early\n")
		wantEqual(t, "stderr", got[chanErr], "err\n")
		wantEqual(t, "exit code", env.WaitExit(id).ExitCode, 5)
	})
}

// TestStuckClient: of two attached clients one never reads. The container, its
// log and the other client don't notice.
func TestStuckClient(t *testing.T) {
	withPod(t, func(t *testing.T, env *testenv.Env, pod string, podConfig podSandboxConfig) {
		const lines = 400000
		// Slow enough for a client that reads, far too much for one that does not.
		script := fmt.Sprintf("read go; i=0; while [ $i -lt 40 ]; do seq $((i*%d+1)) $((i*%d+%d)); i=$((i+1)); sleep 0.05; done", lines/40, lines/40, lines/40)
		config := env.ContainerConfig("main", script)
		config.Stdin = true
		id := env.Run(pod, config, podConfig)
		stuck := attachClient(t, env, id, streams{stdout: true})
		brisk := attachClient(t, env, id, streams{stdin: true, stdout: true})
		brisk.send(0, "go\n")
		got := brisk.finish()
		wantEqual(t, "exit code", env.WaitExit(id).ExitCode, 0)
		var want strings.Builder
		for i := 1; i <= lines; i++ {
			fmt.Fprintln(&want, i)
		}
		if got[chanOut] != want.String() {
			t.Errorf("the brisk client got %d bytes, want %d", len(got[chanOut]), want.Len())
		}
		log := logLines(t, podConfig.LogDirectory+"/main.log")["stdout"]
		if log != want.String() {
			t.Errorf("the log has %d bytes of output, want %d", len(log), want.Len())
		}
		wantContains(t, "the stuck client's first output", "1\n2\n3\n", stuck.first(4))
	})
}

// first reads n bytes of stdout.
func (c *client) first(n int) string {
	c.t.Helper()
	got := ""
	for len(got) < n {
		channel, data, err := c.next()
		if err != nil {
			c.t.Fatal(err)
		}
		if channel == chanOut {
			got += string(data)
		}
	}
	return got[:n]
}

// TestRestartWhileAttached: the daemon is killed under an attached client. The
// container goes on, its log is whole, and a new client is attached at once.
func TestRestartWhileAttached(t *testing.T) {
	withPod(t, func(t *testing.T, env *testenv.Env, pod string, podConfig podSandboxConfig) {
		config := env.ContainerConfig("main", "i=0; while :; do echo $i; i=$((i+1)); sleep 0.005; done")
		config.Stdin = true
		id := env.Run(pod, config, podConfig)
		pid := initPID(t, id)
		file := podConfig.LogDirectory + "/main.log"
		for range 3 {
			c := attachClient(t, env, id, streams{stdin: true, stdout: true, stderr: true})
			c.expect("\n")
			env.Kill9()
			if _, _, err := untilBroken(c); err == nil {
				t.Error("the session outlives the daemon")
			}
			env.StartDaemon()
			attachClient(t, env, id, streams{stdout: true}).expect("\n")
		}
		wantEqual(t, "PID", initPID(t, id), pid)
		env.Stop(id, 0)
		lines := words(logLines(t, file)["stdout"])
		for i, line := range lines {
			if line != fmt.Sprint(i) {
				t.Fatalf("line %d of the log is %q", i, line)
			}
		}
		if len(lines) < 20 {
			t.Errorf("only %d lines in the log", len(lines))
		}
	})
}

// untilBroken reads until the connection breaks.
func untilBroken(c *client) (channel byte, data []byte, err error) {
	for err == nil {
		channel, data, err = c.next()
	}
	return channel, data, err
}
