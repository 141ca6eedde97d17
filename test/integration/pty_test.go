package integration

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-cri/gantry/test/testenv"
)

// A terminal is a program that runs in a pseudo terminal, as under a user's hands.
type terminal struct {
	t      *testing.T
	master *os.File
	cmd    *exec.Cmd
	ended  chan struct{} // closed when the program has ended and all it wrote is read

	mu     sync.Mutex // guards screen
	screen bytes.Buffer
}

// shellOnTerminal is crictl exec -it of a shell that has been seen to know the
// terminal's size, and the size's change to 132 by 50.
func shellOnTerminal(t *testing.T, env *testenv.Env, transport, container string) *terminal {
	t.Helper()
	x := crictlTTY(t, env, "exec", "-r", transport, "-it", container, "sh")
	x.send("echo si''ze $(stty size)\n")
	x.expect("size 24 80")
	x.resize(132, 50)
	// Sent as a size, not as input: the shell learns it when it does.
	x.send("until [ \"$(stty size)\" = '50 132' ]; do sleep 0.05; done; echo now w''ide\n")
	x.expect("now wide")
	return x
}

// crictlTTY runs crictl with the arguments in a terminal of 80 by 24.
func crictlTTY(t *testing.T, env *testenv.Env, args ...string) *terminal {
	t.Helper()
	config := filepath.Join(t.TempDir(), "crictl.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, "runtime-endpoint: unix://%s\ntimeout: 60\n", env.Socket), 0o644); err != nil {
		t.Fatal(err)
	}
	return inTerminal(t, exec.Command(testenv.Binary(t, "crictl"), append([]string{"--config", config}, args...)...))
}

func inTerminal(t *testing.T, cmd *exec.Cmd) *terminal {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	term := &terminal{t: t, master: master, cmd: cmd, ended: make(chan struct{})}
	term.resize(80, 24)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	slave.Close()
	go term.watch()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-term.ended
		master.Close()
	})
	return term
}

// watch reads the screen until the program, and whoever has its terminal open, is gone.
func (x *terminal) watch() {
	buf := make([]byte, 32<<10)
	for {
		n, err := x.master.Read(buf)
		x.mu.Lock()
		x.screen.Write(buf[:n])
		x.mu.Unlock()
		if err != nil {
			break
		}
	}
	_ = x.cmd.Wait()
	close(x.ended)
}

func (x *terminal) resize(columns, rows uint16) {
	x.t.Helper()
	if err := unix.IoctlSetWinsize(int(x.master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: columns, Row: rows}); err != nil {
		x.t.Fatal(err)
	}
}

// send types text.
func (x *terminal) send(text string) {
	x.t.Helper()
	if _, err := x.master.WriteString(text); err != nil {
		x.t.Fatal(err)
	}
}

func (x *terminal) text() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.screen.String()
}

// expect waits until the screen has shown text.
func (x *terminal) expect(text string) {
	x.t.Helper()
	deadline := time.After(time.Minute)
	for !strings.Contains(x.text(), text) {
		select {
		case <-deadline:
			x.t.Fatalf("waited 30 s for %q; the screen shows %q", text, x.text())
		case <-x.ended:
			if !strings.Contains(x.text(), text) {
				x.t.Fatalf("%s ended without %q: %v; the screen shows %q", x.cmd.Args[0], text, x.cmd.ProcessState, x.text())
			}
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// wait waits for the program's end and returns its exit code.
func (x *terminal) wait() int {
	x.t.Helper()
	select {
	case <-x.ended:
	case <-time.After(time.Minute):
		x.t.Fatalf("waited 30 s for the end of %v; the screen shows %q", x.cmd.Args, x.text())
	}
	return x.cmd.ProcessState.ExitCode()
}

// leave ends the program as a closed window does.
func (x *terminal) leave() {
	x.t.Helper()
	if err := x.cmd.Process.Kill(); err != nil {
		x.t.Fatal(err)
	}
	<-x.ended
}

// TestExecTerminal: crictl exec -it, by both protocols: what is typed arrives,
// the program inside sees the terminal's size and its changes, control
// characters are signals, nothing is lost at the end, the exit code comes back.
func TestExecTerminal(t *testing.T) {
	withContainer(t, func(t *testing.T, env *testenv.Env, container string) {
		for _, transport := range []string{"spdy", "websocket"} {
			x := shellOnTerminal(t, env, transport, container)
			x.send("sh -c 'trap \"echo inter\"\"rupted; exit\" INT; echo rea\"\"dy; while :; do sleep 0.1; done'\n")
			x.expect("ready")
			x.send("\x03")
			x.expect("interrupted")
			x.send("seq 1 20000; exit 7\n")
			code := x.wait()
			if !strings.Contains(x.text(), "\r\n19999\r\n20000\r\n") {
				t.Errorf("%s: the end of the output is lost: %q", transport, x.text()[max(0, len(x.text())-200):])
			}
			if code != 7 && !strings.Contains(x.text(), "exit code 7") && !strings.Contains(x.text(), "status 7") {
				t.Errorf("%s: exit code %d is not told: %q", transport, code, x.text()[max(0, len(x.text())-200):])
			}
		}
		vanishedClient(t, env, container)
	})
}

// vanishedClient: when the client is killed, its command and what that started
// end, and nothing else does.
func vanishedClient(t *testing.T, env *testenv.Env, container string) {
	t.Helper()
	x := crictlTTY(t, env, "exec", "-it", container, "sh")
	x.send("sleep 4712 & setsid sleep 4712 & echo beg''un\n")
	x.expect("begun")
	x.leave()
	env.Eventually("no process of the exec to be left", func() error {
		out, err := exec.Command("pgrep", "-f", "^sleep 4712").Output()
		if err == nil && processesIn(t, container, string(out)) {
			return errLeft(out)
		}
		return nil
	})
	wantEqual(t, "the container lives on", env.Exec(container, "echo yes"), "yes\n")
}

// TestAttachTerminal: crictl attach -it to a shell: input, resize, detaching
// and coming back; the shell goes on all the time.
func TestAttachTerminal(t *testing.T) {
	withPod(t, func(t *testing.T, env *testenv.Env, pod string, podConfig podSandboxConfig) {
		config := env.ContainerConfig("shell", "")
		config.Command, config.Tty, config.Stdin = []string{"sh"}, true, true
		id := env.Run(pod, config, podConfig)
		file := filepath.Join(podConfig.LogDirectory, "shell.log")

		x := crictlTTY(t, env, "attach", "-it", id)
		x.send("x=remembered; echo hel''lo\n")
		x.expect("hello")
		x.resize(101, 33)
		x.send("until [ \"$(stty size)\" = '33 101' ]; do sleep 0.05; done; echo now w''ide\n")
		x.expect("now wide")
		x.leave()

		y := crictlTTY(t, env, "attach", "-r", "websocket", "-it", id)
		y.send("echo $x a''gain\n")
		y.expect("remembered again")
		y.send("seq 1 5000; exit 3\n")
		y.wait()
		if !strings.Contains(y.text(), "\r\n4999\r\n5000\r\n") {
			t.Errorf("the end of the output is lost: %q", y.text()[max(0, len(y.text())-200):])
		}
		wantEqual(t, "exit code", env.WaitExit(id).ExitCode, 3)
		log := logLines(t, file)["stdout"]
		wantContains(t, "log", log, "remembered again")
		wantContains(t, "log", log, "5000\r\n")
	})
}

// TestPortForward: crictl port-forward, many connections at once, to a server
// on each loopback address, in a pod of its own network and on the node's.
func TestPortForward(t *testing.T) {
	each(t, func(t *testing.T, env *testenv.Env) {
		env.Pull(testenv.Busybox)
		for _, node := range []bool{false, true} {
			name := fmt.Sprintf("node-%v", node)
			config := env.PodConfig(name)
			if node {
				config.Linux.SecurityContext = nodeNetwork()
			}
			four, six := freePort(t), freePort(t)
			pod := env.RunPod(config)
			server := env.ContainerConfig("server", fmt.Sprintf(`mkdir /www; yes forwarded | head -c 300000 >/www/index.html
				httpd -p [::1]:%d -h /www; exec httpd -f -p 127.0.0.1:%d -h /www`, six, four))
			if node {
				server.Linux.SecurityContext = containerOnNodeNetwork()
			}
			id := env.Run(pod, server, config)
			awaitServer(env, id, fmt.Sprintf("http://127.0.0.1:%d/", four))
			awaitServer(env, id, fmt.Sprintf("http://[::1]:%d/", six))
			for _, transport := range []string{"spdy", "websocket"} {
				forwardTo(t, env, transport, pod, four, six)
			}
		}
	})
}

// awaitServer waits until a server answers inside a container: crictl port-forward
// ends when it finds none.
func awaitServer(env *testenv.Env, container, url string) {
	env.Eventually("a server at "+url, func() error {
		resp, err := execSync(env, container, 20, "wget", "-qO/dev/null", url)
		if err == nil && resp.ExitCode != 0 {
			err = errors.New(string(resp.Stderr))
		}
		return err
	})
}

// forward runs crictl port-forward and returns the node's ports, in the order of
// the pod's.
func forward(t *testing.T, env *testenv.Env, transport, pod string, ports ...int) (x *terminal, local []int) {
	t.Helper()
	args := []string{"port-forward", "-r", transport, pod}
	for _, port := range ports {
		local = append(local, freePort(t))
		args = append(args, fmt.Sprintf("%d:%d", local[len(local)-1], port))
	}
	x = crictlTTY(t, env, args...)
	for _, port := range local {
		x.expect("127.0.0.1:" + strconv.Itoa(port))
	}
	return x, local
}

func forwardTo(t *testing.T, env *testenv.Env, transport, pod string, ports ...int) {
	t.Helper()
	x, local := forward(t, env, transport, pod, ports...)
	defer x.leave()
	for i, port := range local {
		url := fmt.Sprintf("http://127.0.0.1:%d/", port)
		env.Eventually("an answer from port "+strconv.Itoa(ports[i]), func() error {
			_, err := get(url)
			return err
		})
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				body, err := getWithin(url, time.Minute)
				if err != nil || len(body) != 300000 || !strings.HasPrefix(body, "forwarded\n") {
					t.Errorf("%s, port %d: %d bytes, %v", transport, ports[i], len(body), err)
				}
			})
		}
		wg.Wait()
	}
}

// TestLogsFollow: crictl logs -f shows what was and what comes, across a
// rotation, and ends with the container.
func TestLogsFollow(t *testing.T) {
	withPod(t, func(t *testing.T, env *testenv.Env, pod string, podConfig podSandboxConfig) {
		config := env.ContainerConfig("main", "echo early; while read line; do echo got $line; done; echo bye")
		config.Stdin = true
		id := env.Run(pod, config, podConfig)
		file := filepath.Join(podConfig.LogDirectory, "main.log")
		in := attachClient(t, env, id, streams{stdin: true})
		env.WaitLog(file, "early")
		x := crictlTTY(t, env, "logs", "-f", id)
		x.expect("early")
		in.send(0, "one\n")
		x.expect("got one")
		rotate(t, env, id, file, file+".1")
		in.send(0, "two\n")
		x.expect("got two")
		env.Stop(id, 0)
		x.wait()
	})
}
