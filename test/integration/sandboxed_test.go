package integration

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/test/testenv"
)

// gvisor is the handler of gVisor's runsc, beside the default one.
const gvisor = "gvisor"

// withSandbox runs a test with a pod in gVisor, beside a pod of crun's.
func withSandbox(t *testing.T, test func(t *testing.T, env *testenv.Env, pod string, config podSandboxConfig)) {
	t.Helper()
	notForPeers(t)
	t.Parallel()
	env := testenv.Start(t, testenv.Options{
		Registry: shared.Registry(t),
		Runtimes: map[string]string{gvisor: testenv.Binary(t, "runsc")},
	})
	env.Pull(testenv.Busybox)
	config := env.PodConfig("sandboxed")
	test(t, env, runWith(t, env, config, gvisor), config)
}

// logOf is the log of the container that ContainerConfig gives that name.
func logOf(config podSandboxConfig, name string) string {
	return filepath.Join(config.LogDirectory, name+".log")
}

// TestSandboxedPod: two containers of one pod share a kernel that is not the
// node's, a network and /dev/shm, and have logs, limits to their output and root
// filesystems of their own; beside them is a pod of crun's.
func TestSandboxedPod(t *testing.T) {
	withSandbox(t, func(t *testing.T, env *testenv.Env, pod string, config podSandboxConfig) {
		wantEqual(t, "handler", env.PodStatus(pod).RuntimeHandler, gvisor)
		one := env.Run(pod, env.ContainerConfig("one", "echo out; echo err >&2; echo kept >/file; exec sleep 1000"), config)
		two := env.Run(pod, env.ContainerConfig("two", "mkdir /www; echo served >/www/index.html; exec httpd -f -p 8080 -h /www"), config)
		env.WaitLog(logOf(config, "one"), "err")
		lines := logLines(t, logOf(config, "one"))
		wantEqual(t, "stdout", lines["stdout"], "out\n")
		wantEqual(t, "stderr", lines["stderr"], "err\n")

		wantContains(t, "kernel", env.Exec(one, "dmesg"), "gVisor")
		wantEqual(t, "hostname", env.Exec(one, "hostname"), "sandboxed\n")
		wantEqual(t, "file", env.Exec(one, "cat /file"), "kept\n")
		wantEqual(t, "file of the other", env.Exec(two, "test -e /file || echo none"), "none\n")
		env.Exec(one, "echo shared >/dev/shm/x")
		wantEqual(t, "/dev/shm of the other", env.Exec(two, "cat /dev/shm/x"), "shared\n")
		wantEqual(t, "processes of the other", env.Exec(one, "ps -o args | grep -c '^httpd'"), "1\n")

		testSandboxedNetwork(t, env, pod, one)

		other, neighbour := runIn(env, env.PodConfig("neighbour"), "main")
		wantContains(t, "kernel of the neighbour", env.Exec(neighbour, "uname -r"), kernelRelease(t))
		address := env.PodStatus(pod).Network.Ip
		wantEqual(t, "from the neighbour", env.Exec(neighbour, "wget -qO- http://"+address+":8080/"), "served\n")
		env.RemovePod(other)
		wantEqual(t, "exec", env.Exec(one, "echo still here"), "still here\n")
		env.RemovePod(pod)
	})
}

func kernelRelease(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

// testSandboxedNetwork: from the node to the pod, from the pod to the node, and
// between the containers. The second container serves on port 8080.
func testSandboxedNetwork(t *testing.T, env *testenv.Env, pod, container string) {
	t.Helper()
	address := env.PodStatus(pod).Network.Ip
	env.Eventually("the server in the sandbox", func() error {
		body, err := get("http://" + address + ":8080/")
		if err == nil {
			wantEqual(t, "page", body, "served\n")
		}
		return err
	})
	wantEqual(t, "between containers", env.Exec(container, "wget -qO- http://127.0.0.1:8080/"), "served\n")
	gateway := netip.MustParsePrefix(env.Subnet).Addr().Next().String()
	l, err := net.Listen("tcp", net.JoinHostPort(gateway, "0"))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, r.RemoteAddr) })}
	go server.Serve(l)
	defer server.Close()
	wantContains(t, "address that the node sees", env.Exec(container, "wget -qO- http://"+l.Addr().String()+"/"), address+":")
	stats := podStats(t, env, pod)
	if n := stats.Linux.Network.GetDefaultInterface().GetRxBytes().GetValue(); n == 0 {
		t.Error("the stats know of no received byte")
	}
}

// TestSandboxedExec: exit codes, outputs, environment, what can't run, and that
// a timeout kills what the command has started.
func TestSandboxedExec(t *testing.T) {
	withSandbox(t, func(t *testing.T, env *testenv.Env, pod string, podConfig podSandboxConfig) {
		config := env.ContainerConfig("main", "exec sleep 1000")
		config.Envs = []*runtimeapi.KeyValue{{Key: "NAME", Value: []byte("value")}}
		config.Linux.SecurityContext = &runtimeapi.LinuxContainerSecurityContext{RunAsUser: &runtimeapi.Int64Value{Value: 1000}}
		container := env.Run(pod, config, podConfig)
		resp, err := execSync(env, container, 20, "sh", "-c", "echo out; echo err >&2; exit 5")
		if err != nil {
			t.Fatal(err)
		}
		wantEqual(t, "stdout", string(resp.Stdout), "out\n")
		wantEqual(t, "stderr", string(resp.Stderr), "err\n")
		wantEqual(t, "exit code", resp.ExitCode, 5)
		wantEqual(t, "user and environment", env.Exec(container, "id -u; echo $NAME"), "1000\nvalue\n")
		if resp, err = execSync(env, container, 20, "sh", "-c", "kill -9 $$"); err != nil {
			t.Fatal(err)
		}
		wantEqual(t, "exit code of a killed command", resp.ExitCode, 137)
		if resp, err := execSync(env, container, 20, "/no/such/program"); err == nil && resp.ExitCode == 0 {
			t.Error("a program that does not exist ran well")
		}
		prompt(t, "a command that leaves another behind", 10*time.Second, func() {
			wantEqual(t, "output", env.Exec(container, "sleep 4714 & echo done"), "done\n")
		})

		_, err = execSync(env, container, 2, "sh", "-c", "setsid sleep 4711 & (sleep 4711 &) ; sleep 4711 & wait")
		wantCode(t, "exec that takes too long", err, codes.DeadlineExceeded)
		wantEqual(t, "what is left", env.Exec(container, "ps -o args | grep -c '^sleep 4711' || true"), "0\n")
		wantEqual(t, "what was left on purpose", env.Exec(container, "ps -o args | grep -c '^sleep 4714'"), "1\n")

		env.Stop(container, 0)
		_, err = execSync(env, container, 20, "true")
		wantNotOK(t, "exec in a container that has ended", err)
	})
}

// TestSandboxedSessions: exec and attach by crictl in a terminal, and
// port-forward; and nothing of an exec goes on whose client or daemon was killed.
func TestSandboxedSessions(t *testing.T) {
	withSandbox(t, func(t *testing.T, env *testenv.Env, pod string, podConfig podSandboxConfig) {
		port := freePort(t)
		container := env.Run(pod, env.ContainerConfig("server", fmt.Sprintf(`mkdir /www; yes forwarded | head -c 300000 >/www/index.html
			exec httpd -f -p 127.0.0.1:%d -h /www`, port)), podConfig)
		awaitServer(env, container, fmt.Sprintf("http://127.0.0.1:%d/", port))
		for _, transport := range []string{"spdy", "websocket"} {
			x := shellOnTerminal(t, env, transport, container)
			x.send("seq 1 20000; exit 7\n")
			x.wait()
			if !strings.Contains(x.text(), "\r\n19999\r\n20000\r\n") {
				t.Errorf("%s: the end of the output is lost: %q", transport, x.text()[max(0, len(x.text())-200):])
			}
			testSandboxedForward(t, env, transport, pod, port)
		}
		testSandboxedPipe(t, env, container)

		left := func() error {
			out := env.Exec(container, "ps -o args | grep '^sleep 4712' || true")
			if out != "" {
				return errLeft(out)
			}
			return nil
		}
		x := crictlTTY(t, env, "exec", "-it", container, "sh")
		x.send("sleep 4712 & echo beg''un\n")
		x.expect("begun")
		x.leave()
		env.Eventually("no process of the client's exec to be left", left)

		y := crictlTTY(t, env, "exec", "-i", container, "sh")
		y.send("echo begun; sleep 4712\n")
		y.expect("begun")
		env.Kill9()
		env.StartDaemon()
		env.Eventually("no process of the daemon's exec to be left", left)
	})
}

// testSandboxedForward: each connection is a command of runsc's, which takes its
// time on a busy machine.
func testSandboxedForward(t *testing.T, env *testenv.Env, transport, pod string, port int) {
	t.Helper()
	x, local := forward(t, env, transport, pod, port)
	defer x.leave()
	client := http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true}}
	for range 4 {
		resp, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d/", local[0]))
		if err != nil {
			t.Fatalf("%s: %v", transport, err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || len(body) != 300000 || !strings.HasPrefix(string(body), "forwarded\n") {
			t.Errorf("%s: %d bytes, %v", transport, len(body), err)
		}
	}
}

// testSandboxedPipe sends input through a command and back.
func testSandboxedPipe(t *testing.T, env *testenv.Env, container string) {
	t.Helper()
	cmd := exec.Command(testenv.Binary(t, "crictl"), "-r", "unix://"+env.Socket, "exec", "-i", container, "sh", "-c", "cat; echo end >&2")
	data := strings.Repeat("a line of input\n", 20000)
	var stderr strings.Builder
	cmd.Stdin, cmd.Stderr = strings.NewReader(data), &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("crictl exec: %v: %s", err, stderr.String())
	}
	if string(out) != data {
		t.Errorf("%d bytes came back of %d", len(out), len(data))
	}
	wantContains(t, "stderr", stderr.String(), "end")
}

// TestSandboxedAttach: a container with a terminal and one with a pipe for its
// input, attached before they are started.
func TestSandboxedAttach(t *testing.T) {
	withSandbox(t, func(t *testing.T, env *testenv.Env, pod string, podConfig podSandboxConfig) {
		config := env.ContainerConfig("shell", "")
		config.Command, config.Tty, config.Stdin = []string{"sh"}, true, true
		id := env.Run(pod, config, podConfig)
		x := crictlTTY(t, env, "attach", "-it", id)
		x.send("x=remembered; echo hel''lo\n")
		x.expect("hello")
		x.resize(101, 33)
		x.send("until [ \"$(stty size)\" = '33 101' ]; do sleep 0.05; done; echo now w''ide\n")
		x.expect("now wide")
		x.leave()
		y := crictlTTY(t, env, "attach", "-it", id)
		y.send("echo $x a''gain; exit 3\n")
		y.wait()
		wantEqual(t, "exit code", env.WaitExit(id).ExitCode, 3)
		wantContains(t, "log", logLines(t, logOf(podConfig, "shell"))["stdout"], "remembered again")

		pipe := env.ContainerConfig("pipe", "read line; echo got $line; cat >/dev/null; exit 4")
		pipe.Stdin, pipe.StdinOnce = true, true
		id = env.Create(pod, pipe, podConfig)
		c := attachClient(t, env, id, streams{stdin: true, stdout: true})
		env.Start(id)
		c.send(0, "input\n")
		c.expect("got input")
		c.ws.Close()
		wantEqual(t, "exit code", env.WaitExit(id).ExitCode, 4)
	})
}

// TestSandboxedEnds: every way in which a container ends.
func TestSandboxedEnds(t *testing.T) {
	withSandbox(t, func(t *testing.T, env *testenv.Env, pod string, config podSandboxConfig) {
		n := 0
		run := func(script string) string {
			n++
			return env.Run(pod, env.ContainerConfig(fmt.Sprintf("c%d", n), script), config)
		}
		for script, code := range map[string]int32{"true": 0, "exit 7": 7, "kill -9 $$": 137, "exit 255": 255} {
			status := env.WaitExit(run(script))
			wantEqual(t, "exit code of "+script, status.ExitCode, code)
			if status.FinishedAt < status.StartedAt {
				t.Errorf("%s ended before it began", script)
			}
		}
		heeds := run("trap 'exit 6' TERM; echo ready; while :; do sleep 0.05; done")
		env.WaitLog(logOf(config, fmt.Sprintf("c%d", n)), "ready")
		prompt(t, "a stop that is heeded", 20*time.Second, func() { env.Stop(heeds, time.Minute) })
		wantEqual(t, "exit code", env.Status(heeds).ExitCode, 6)

		ignores := run("trap '' TERM; echo ready; while :; do sleep 0.05; done")
		env.WaitLog(logOf(config, fmt.Sprintf("c%d", n)), "ready")
		env.Stop(ignores, time.Second)
		wantEqual(t, "exit code", env.Status(ignores).ExitCode, 137)
		env.Remove(ignores)

		created := env.Create(pod, env.ContainerConfig("created", "true"), config)
		env.Stop(created, time.Minute)
		wantEqual(t, "state", env.Status(created).State, runtimeapi.ContainerState_CONTAINER_EXITED)
		again := env.Create(pod, env.ContainerConfig("again", "true"), config)
		env.Remove(again)
		env.Remove(run("exec sleep 1000"))

		left := run("(sleep 4713; true) & exit 0")
		wantEqual(t, "exit code", env.WaitExit(left).ExitCode, 0)
		env.Remove(left)
		env.StopPod(pod)
		wantEqual(t, "state", env.PodStatus(pod).State, runtimeapi.PodSandboxState_SANDBOX_NOTREADY)
	})
}

// TestSandboxedRestart: the daemon is killed; containers go on, or end, without
// it, and it knows of all that when it is back.
func TestSandboxedRestart(t *testing.T) {
	withSandbox(t, func(t *testing.T, env *testenv.Env, pod string, config podSandboxConfig) {
		created := env.Create(pod, env.ContainerConfig("created", "echo late; exit 4"), config)
		running := env.Run(pod, env.ContainerConfig("running", "i=0; while :; do echo $i; i=$((i+1)); sleep 0.05; done"), config)
		ending := env.Run(pod, env.ContainerConfig("ending", "echo ready; until [ -e /dev/shm/end ]; do sleep 0.05; done; exit 6"), config)
		ended := env.Run(pod, env.ContainerConfig("ended", "exit 5"), config)
		env.WaitExit(ended)
		env.WaitLog(logOf(config, "ending"), "ready")
		before := env.Status(running)

		env.Exec(running, "(sleep 1; touch /dev/shm/end) >/dev/null 2>&1 &")
		env.Kill9()
		time.Sleep(2 * time.Second) // the container ends while no daemon runs, at the latest after it is back
		env.StartDaemon()

		wantEqual(t, "pod state", env.PodStatus(pod).State, runtimeapi.PodSandboxState_SANDBOX_READY)
		after := env.Status(running)
		wantEqual(t, "state", after.State, runtimeapi.ContainerState_CONTAINER_RUNNING)
		wantEqual(t, "start time", after.StartedAt, before.StartedAt)
		wantEqual(t, "exit code from before", env.Status(ended).ExitCode, 5)
		wantEqual(t, "exit code of the time between", env.WaitExit(ending).ExitCode, 6)
		wantEqual(t, "created container's state", env.Status(created).State, runtimeapi.ContainerState_CONTAINER_CREATED)
		env.Start(created)
		wantEqual(t, "exit code", env.WaitExit(created).ExitCode, 4)
		env.WaitLog(logOf(config, "created"), "late")
		wantEqual(t, "exec", env.Exec(running, "echo hi"), "hi\n")
		later := env.Run(pod, env.ContainerConfig("later", "exit 8"), config)
		wantEqual(t, "exit code", env.WaitExit(later).ExitCode, 8)
	})
}

// TestSandboxDies: when the sandbox is killed, the pod and all its containers
// have ended, and can be removed.
func TestSandboxDies(t *testing.T) {
	withSandbox(t, func(t *testing.T, env *testenv.Env, pod string, config podSandboxConfig) {
		running := env.Run(pod, env.ContainerConfig("running", "exec sleep 1000"), config)
		created := env.Create(pod, env.ContainerConfig("created", "true"), config)
		if err := syscall.Kill(pausePID(t, env, pod), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		wantEqual(t, "exit code", env.WaitExit(running).ExitCode, 137)
		env.Eventually("the pod to be not ready", func() error {
			if s := env.PodStatus(pod).State; s != runtimeapi.PodSandboxState_SANDBOX_NOTREADY {
				return fmt.Errorf("it is %s", s)
			}
			return nil
		})
		_, err := env.Runtime.StartContainer(env.Context(), &runtimeapi.StartContainerRequest{ContainerId: created})
		wantNotOK(t, "start in a dead sandbox", err)
		env.Remove(running)
	})
}

// TestSandboxedRefusals: what a sandbox can't do is refused, and what fails says why.
func TestSandboxedRefusals(t *testing.T) {
	withSandbox(t, func(t *testing.T, env *testenv.Env, pod string, podConfig podSandboxConfig) {
		config := env.ContainerConfig("main", "")
		config.Command = []string{"/no/such/program"}
		id := env.Create(pod, config, podConfig)
		_, err := env.Runtime.StartContainer(env.Context(), &runtimeapi.StartContainerRequest{ContainerId: id})
		wantNotOK(t, "start of a program that does not exist", err)
		wantContains(t, "error", err.Error(), "/no/such/program")
		env.WaitExit(id)

		node := runtimeapi.NamespaceMode_NODE
		for name, o := range map[string]*runtimeapi.NamespaceOption{
			"net": {Network: node}, "pid": {Pid: node}, "ipc": {Ipc: node},
			"user": {UsernsOptions: &runtimeapi.UserNamespace{
				Mode: runtimeapi.NamespaceMode_POD,
				Uids: []*runtimeapi.IDMapping{{HostId: 100000, Length: 65536}}, Gids: []*runtimeapi.IDMapping{{HostId: 100000, Length: 65536}},
			}},
		} {
			c := env.PodConfig(name)
			c.Linux.SecurityContext = &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: o}
			_, err := env.Runtime.RunPodSandbox(env.Context(), &runtimeapi.RunPodSandboxRequest{Config: c, RuntimeHandler: gvisor})
			wantCode(t, "pod with another "+name+" namespace", err, codes.Unimplemented)
		}
		create := func(c *runtimeapi.ContainerConfig) error {
			_, err := env.Runtime.CreateContainer(env.Context(), &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: c, SandboxConfig: podConfig})
			return err
		}
		running := env.Run(pod, env.ContainerConfig("running", "exec sleep 1000"), podConfig)
		target := env.ContainerConfig("target", "true")
		target.Linux.SecurityContext = &runtimeapi.LinuxContainerSecurityContext{
			NamespaceOptions: &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_TARGET, TargetId: running},
		}
		wantCode(t, "a container's processes", create(target), codes.Unimplemented)
		status, err := env.Runtime.Status(env.Context(), &runtimeapi.StatusRequest{})
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range status.RuntimeHandlers {
			if h.Name == gvisor && (h.Features.UserNamespaces || h.Features.RecursiveReadOnlyMounts) {
				t.Errorf("the handler claims %v", h.Features)
			}
		}
		failingCreate(t, env)
	})
}

// failingCreate: a runtime that can't make a sandbox says why, and leaves nothing.
func failingCreate(t *testing.T, env *testenv.Env) {
	t.Helper()
	broken := script(t, env.Dir, "broken", `case " $* " in *" create "*) set -- --platform=none-such "$@";; esac
exec `+testenv.Binary(t, "runsc")+` "$@"
`)
	configure(t, env, fmt.Sprintf("[runtimes.broken]\npath = %q\n", broken))
	_, err := env.Runtime.RunPodSandbox(env.Context(), &runtimeapi.RunPodSandboxRequest{Config: env.PodConfig("broken"), RuntimeHandler: "broken"})
	wantNotOK(t, "a pod with a broken platform", err)
	wantContains(t, "error", err.Error(), "none-such")
}

// withSandboxStats is withSandbox with usage that is sampled every second.
func withSandboxStats(t *testing.T, runsc string, test func(t *testing.T, env *testenv.Env, pod string, config podSandboxConfig)) {
	t.Helper()
	notForPeers(t)
	t.Parallel()
	env := testenv.Start(t, testenv.Options{
		Registry: shared.Registry(t),
		Runtimes: map[string]string{gvisor: runsc},
		Config:   "stats_collection_period = \"1s\"\n",
	})
	env.Pull(testenv.Busybox)
	config := env.PodConfig("sandboxed")
	test(t, env, runWith(t, env, config, gvisor), config)
}

// TestSandboxedStats: what the pod uses is counted, and of each container what
// it is that uses it: one burns CPU, one holds memory, one does neither.
func TestSandboxedStats(t *testing.T) {
	withSandboxStats(t, testenv.Binary(t, "runsc"), func(t *testing.T, env *testenv.Env, pod string, config podSandboxConfig) {
		busy := env.Run(pod, env.ContainerConfig("busy", "while :; do :; done"), config)
		large := env.Run(pod, env.ContainerConfig("large", "head -c 48000000 /dev/zero | tail -c 48000000 | (sleep 1000; cat)"), config)
		idle := env.Run(pod, env.ContainerConfig("idle", "sleep 1000"), config)
		created := env.Create(pod, env.ContainerConfig("created", "sleep 1000"), config)
		env.Eventually("CPU and memory in the pod's stats", func() error {
			linux := podStats(t, env, pod).Linux
			if cpu, memory := linux.Cpu.GetUsageCoreNanoSeconds().GetValue(), linux.Memory.GetWorkingSetBytes().GetValue(); cpu < 300e6 || memory < 48000000 {
				return fmt.Errorf("CPU %d ns, memory %d bytes", cpu, memory)
			}
			return nil
		})
		of := func(id string) *runtimeapi.ContainerStats { return containerStats(t, env, id) }
		env.Eventually("CPU and its rate in the stats of the container that burns it", func() error {
			cpu := of(busy).Cpu
			if cpu.GetUsageCoreNanoSeconds().GetValue() < 1e9 || cpu.GetUsageNanoCores().GetValue() < 50e6 {
				return fmt.Errorf("CPU %v", cpu)
			}
			return nil
		})
		env.Eventually("memory in the stats of the container that holds it", func() error {
			if m := of(large).Memory; m.GetUsageBytes().GetValue() < 40000000 || m.GetWorkingSetBytes().GetValue() < 40000000 {
				return fmt.Errorf("memory %v", m)
			}
			return nil
		})
		env.Eventually("stats of the idle container", func() error {
			if st := of(idle); st.Cpu == nil || st.Memory == nil {
				return fmt.Errorf("%v", st)
			}
			return nil
		})
		quiet, total := of(idle), podStats(t, env, pod).Linux
		between(t, "memory of the idle container", quiet.Memory.GetUsageBytes().GetValue(), 1, 20000000)
		between(t, "memory of the busy one", of(busy).Memory.GetUsageBytes().GetValue(), 1, 20000000)
		between(t, "CPU of the idle container", quiet.Cpu.GetUsageCoreNanoSeconds().GetValue(), 0, of(busy).Cpu.GetUsageCoreNanoSeconds().GetValue())
		between(t, "CPU of the busy container, beside the pod's", of(busy).Cpu.GetUsageCoreNanoSeconds().GetValue(),
			1e9, podStats(t, env, pod).Linux.Cpu.GetUsageCoreNanoSeconds().GetValue())
		if m := quiet.Memory; m.RssBytes != nil || m.AvailableBytes != nil || m.PageFaults != nil || quiet.Swap != nil {
			t.Errorf("what the sandbox does not tell: %v", quiet)
		}
		wantEqual(t, "containers in the pod's stats", len(total.Containers), 4)
		if st := of(created); st.Attributes.Id != created || st.Cpu != nil || st.Memory != nil {
			t.Errorf("stats of one that was not started: %v", st)
		}
		testSandboxedMetrics(t, env, busy)
		env.Exec(busy, "head -c 3000000 /dev/zero >/big")
		env.Eventually("the writable layer in the container's stats", func() error {
			if n := of(busy).WritableLayer.GetUsedBytes().GetValue(); n < 3000000 {
				return fmt.Errorf("%d bytes", n)
			}
			return nil
		})
	})
}

// testSandboxedMetrics: the metrics tell what the stats tell.
func testSandboxedMetrics(t *testing.T, env *testenv.Env, container string) {
	t.Helper()
	env.Eventually("CPU, memory and threads in the metrics", func() error {
		resp, err := env.Runtime.ListPodSandboxMetrics(env.Context(), &runtimeapi.ListPodSandboxMetricsRequest{})
		if err != nil {
			return err
		}
		got := map[string]uint64{}
		for _, c := range resp.PodMetrics[0].ContainerMetrics {
			for _, m := range c.Metrics {
				if c.ContainerId == container {
					got[m.Name] = m.GetValue().GetValue()
				}
			}
		}
		if got["container_cpu_usage_seconds_total"] < 1 || got["container_memory_working_set_bytes"] == 0 || got["container_threads"] == 0 {
			return fmt.Errorf("metrics %v", got)
		}
		if _, ok := got["container_memory_rss"]; ok {
			t.Errorf("metrics tell what nobody knows: %v", got)
		}
		return nil
	})
}

// TestSandboxedStatsHang: a runtime that does not answer delays no list, and
// what it starts ends with the daemon's patience or the daemon.
func TestSandboxedStatsHang(t *testing.T) {
	dir := t.TempDir()
	asked, runsc := filepath.Join(dir, "asked"), filepath.Join(dir, "runsc")
	script := "#!/bin/sh\ncase \"$*\" in *\" events --stats \"*) echo x >>" + asked + "; exec sleep 1000;; esac\nexec " + testenv.Binary(t, "runsc") + " \"$@\"\n"
	if err := os.WriteFile(runsc, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	withSandboxStats(t, runsc, func(t *testing.T, env *testenv.Env, pod string, config podSandboxConfig) {
		container := env.Run(pod, env.ContainerConfig("main", "sleep 1000"), config)
		env.Eventually("the question for its usage", func() error {
			if st := containerStats(t, env, container); st.Attributes.Id != container || st.Cpu != nil {
				return fmt.Errorf("%v", st)
			}
			_, err := os.Stat(asked)
			return err
		})
		start := time.Now()
		for range 20 {
			list, err := env.Runtime.ListContainerStats(env.Context(), &runtimeapi.ListContainerStatsRequest{})
			if err != nil || len(list.Stats) != 1 || list.Stats[0].Cpu != nil {
				t.Fatalf("%v, %v", list, err)
			}
		}
		if took := time.Since(start); took > 8*time.Second { // a question takes 10
			t.Errorf("20 lists took %s", took)
		}
	})
}
