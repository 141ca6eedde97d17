package integration

import (
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/test/testenv"
)

// streamIdle is longer than what lies between the pings of Kubernetes clients,
// which must not keep a session alive.
const streamIdle = 6 * time.Second

// TestIdleSessions: sessions over which nothing is sent end, with all that was
// started in them; what is in use goes on, and so does the container.
func TestIdleSessions(t *testing.T) {
	o := testenv.Options{Config: fmt.Sprintf("stream_idle_timeout = %q\n", streamIdle)}
	eachWith(t, o, func(t *testing.T, env *testenv.Env) {
		notForPeers(t)
		env.Pull(testenv.Busybox)
		config := env.PodConfig("pod")
		pod := env.RunPod(config)
		port := freePort(t)
		main := env.ContainerConfig("main", fmt.Sprintf("nc -lk -p %d -e sleep 1000 & read line; sleep 1000", port))
		main.Stdin = true
		id := env.Run(pod, main, config)

		var idle []*terminal
		for _, transport := range []string{"spdy", "websocket"} {
			x := crictlTTY(t, env, "exec", "-r", transport, id, "sh", "-c", "sleep 4713 & setsid sleep 4713 & echo beg''un; wait")
			x.expect("begun")
			idle = append(idle, x, crictlTTY(t, env, "attach", "-r", transport, id), idleForward(t, env, transport, pod, port))
		}
		execBusy := execClient(t, env, id, "sh", "-c", "while read line; do echo got $line; done")
		attachBusy := attachClient(t, env, id, streams{stdin: true, stdout: true})
		begin := time.Now()
		for time.Since(begin) < 2*streamIdle {
			execBusy.send(0, "it\n")
			execBusy.expect("got it\n")
			attachBusy.send(0, "\x00") // no line: nobody answers
			time.Sleep(streamIdle / 20)
		}
		execBusy.send(0, "last\n")
		execBusy.expect("got last\n")
		execBusy.send(255, "\x00")
		if said := execBusy.finish()[chanStatus]; !strings.Contains(said, "Success") {
			t.Errorf("the session in use ended with %q", said)
		}
		for _, x := range idle {
			code := x.wait()
			if x.cmd.Args[3] != "port-forward" && code == 0 {
				t.Errorf("%v ended as if all were well: %q", x.cmd.Args, x.text())
			}
		}
		env.Eventually("no process of the idle sessions to be left", func() error {
			out, err := exec.Command("pgrep", "-f", "^sleep 4713").Output()
			if err == nil && processesIn(t, id, string(out)) {
				return errLeft(out)
			}
			return nil
		})
		wantEqual(t, "state", env.Status(id).State, runtimeapi.ContainerState_CONTAINER_RUNNING)
		attachBusy.send(0, "more\n") // after all the time it is still connected
	})
}

// execClient begins an exec session with input and output.
func execClient(t *testing.T, env *testenv.Env, container string, args ...string) *client {
	t.Helper()
	resp, err := env.Runtime.Exec(env.Context(), &runtimeapi.ExecRequest{ContainerId: container, Cmd: args, Stdin: true, Stdout: true})
	if err != nil {
		t.Fatalf("Exec: %v", err)
	}
	return dial(t, resp.Url, nil)
}

// idleForward forwards a port, with a connection over which nothing is sent.
func idleForward(t *testing.T, env *testenv.Env, transport, pod string, port int) *terminal {
	t.Helper()
	local := freePort(t)
	x := crictlTTY(t, env, "port-forward", "-r", transport, pod, fmt.Sprintf("%d:%d", local, port))
	x.expect(fmt.Sprintf("127.0.0.1:%d", local))
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", local))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return x
}
