package crash

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/test/testenv"
)

// TestMessageLimit: a request that is larger than a message may be is refused,
// alone.
func TestMessageLimit(t *testing.T) {
	one(t, testenv.Options{Config: "grpc_max_message_size = 1048576"}, func(t *testing.T, env *testenv.Env) {
		config := env.PodConfig("pod")
		config.Annotations = map[string]string{"large": strings.Repeat("x", 2<<20)}
		_, err := env.Runtime.RunPodSandbox(env.Context(), &runtimeapi.RunPodSandboxRequest{Config: config})
		if status.Code(err) != codes.ResourceExhausted {
			t.Errorf("a request of 2 MiB: %v", err)
		}
		config.Annotations["large"] = strings.Repeat("x", 500<<10)
		env.RemovePod(env.RunPod(config))
	})
}

// TestFloods: connections that say nothing, or garbage, clients that go away in
// the middle of a call, and one that asks and reads nothing delay no other, and
// leave nothing in the daemon.
func TestFloods(t *testing.T) {
	const silent, garbage, vanishing = 300, 100, 20
	one(t, testenv.Options{}, func(t *testing.T, env *testenv.Env) {
		env.Pull(testenv.Busybox)
		config := env.PodConfig("pod")
		pod := env.RunPod(config)
		ctr := env.Run(pod, env.ContainerConfig("main", "sleep 1000"), config)
		stop := watch(t, env, "floods", pod, ctr)
		var open []net.Conn
		for i := range silent + garbage {
			conn, err := net.Dial("unix", env.Socket)
			if err != nil {
				t.Fatal(err)
			}
			open = append(open, conn)
			if i >= silent {
				_, _ = io.WriteString(conn, strings.Repeat("garbage\r\n", i)) // it is cut off for that
			}
		}
		read := stuckReader(t, env, ctr)
		var vanished sync.WaitGroup
		for range vanishing {
			vanished.Go(func() { vanish(t, env, ctr) })
		}
		vanished.Wait()
		if got := env.Exec(ctr, "echo yes"); got != "yes\n" {
			t.Errorf("meanwhile an exec says %q", got)
		}
		stop()
		t.Logf("%d bytes read by a client that asked for much more", read())
		for _, conn := range open {
			if err := conn.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}

// dial connects a client of its own, by conn if that is not nil.
func dial(t *testing.T, env *testenv.Env, wrap func(net.Conn) net.Conn) *grpc.ClientConn {
	t.Helper()
	client, err := grpc.NewClient("unix://"+env.Socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			var d net.Dialer
			conn, err := d.DialContext(ctx, "unix", env.Socket)
			if err == nil && wrap != nil {
				conn = wrap(conn)
			}
			return conn, err
		}))
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// vanish begins calls that take a while, and closes the connection at once.
func vanish(t *testing.T, env *testenv.Env, ctr string) {
	client := dial(t, env, nil)
	runtime := runtimeapi.NewRuntimeServiceClient(client)
	ended := make(chan error, 2)
	go func() {
		_, err := runtime.ExecSync(env.Context(), &runtimeapi.ExecSyncRequest{ContainerId: ctr, Cmd: []string{"sleep", "1000"}})
		ended <- err
	}()
	go func() {
		events, err := runtime.GetContainerEvents(env.Context(), &runtimeapi.GetEventsRequest{})
		for err == nil {
			_, err = events.Recv()
		}
		ended <- err
	}()
	if _, err := runtime.Version(env.Context(), &runtimeapi.VersionRequest{}); err != nil {
		t.Errorf("a client before it vanishes: %v", err)
	}
	if err := client.Close(); err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := <-ended; err == nil {
			t.Error("a call of a client that vanished has succeeded")
		}
	}
}

// stuck is a connection from which nothing is read any more beyond a limit, until
// it is closed.
type stuck struct {
	net.Conn
	read   atomic.Int64
	closed chan struct{}
	once   sync.Once
}

func (s *stuck) Read(p []byte) (int, error) {
	if s.read.Load() > 4096 {
		<-s.closed
		return 0, net.ErrClosed
	}
	n, err := s.Conn.Read(p)
	s.read.Add(int64(n))
	return n, err
}

func (s *stuck) Close() error {
	s.once.Do(func() { close(s.closed) })
	return s.Conn.Close()
}

// stuckReader asks for much and reads next to nothing of it, until the returned
// function is called; that returns how many bytes it read.
func stuckReader(t *testing.T, env *testenv.Env, ctr string) (end func() int64) {
	t.Helper()
	const questions = 500
	conns := make(chan *stuck, 1)
	client := dial(t, env, func(conn net.Conn) net.Conn {
		s := &stuck{Conn: conn, closed: make(chan struct{})}
		select {
		case conns <- s:
		default: // it connects again after the end
		}
		return s
	})
	runtime := runtimeapi.NewRuntimeServiceClient(client)
	var asking sync.WaitGroup
	for range questions {
		asking.Go(func() {
			_, _ = runtime.ContainerStatus(env.Context(), &runtimeapi.ContainerStatusRequest{ContainerId: ctr, Verbose: true}) // most are never answered
		})
	}
	s := <-conns
	env.Eventually("the client to be stuck", func() error {
		if n := s.read.Load(); n <= 4096 {
			return fmt.Errorf("it has read %d bytes", n)
		}
		return nil
	})
	return func() int64 {
		if err := client.Close(); err != nil {
			t.Error(err)
		}
		asking.Wait()
		return s.read.Load()
	}
}

// TestGracefulStop: a daemon that is told to stop finishes what takes a moment
// and cuts off what takes longer, within its deadline; the next one goes on.
func TestGracefulStop(t *testing.T) {
	each(t, func(t *testing.T, env *testenv.Env) {
		env.Pull(testenv.Busybox)
		config := env.PodConfig("pod")
		pod := env.RunPod(config)
		ctr := runDeaf(env, pod, "main", config)
		long := make(chan error, 1)
		go func() {
			_, err := env.Runtime.StopContainer(env.Context(), &runtimeapi.StopContainerRequest{ContainerId: ctr, Timeout: 1000})
			long <- err
		}()
		short := make(chan error, 1)
		go func() {
			resp, err := env.Runtime.ExecSync(env.Context(), &runtimeapi.ExecSyncRequest{ContainerId: ctr, Cmd: []string{"sh", "-c", "touch /tmp/begun; sleep 1; echo done"}})
			if err == nil && string(resp.Stdout) != "done\n" {
				err = fmt.Errorf("it printed %q, %q", resp.Stdout, resp.Stderr)
			}
			short <- err
		}()
		env.Eventually("the exec to begin", func() error {
			if found, _ := filepath.Glob(filepath.Join(env.Root, "containers", ctr, "upper/tmp/begun")); len(found) == 0 {
				return errors.New("it has not")
			}
			return nil
		})
		begin := time.Now()
		env.StopDaemon() // fails the test after 10 s
		t.Logf("the daemon ended %s after it was told to", time.Since(begin).Round(time.Millisecond))
		if err := <-short; err != nil {
			t.Errorf("an exec of a second, begun before: %v", err)
		}
		if err := <-long; err == nil {
			t.Error("a stop with a long grace has succeeded")
		}
		env.StartDaemon()
		if state := env.Status(ctr).State; state != runtimeapi.ContainerState_CONTAINER_RUNNING {
			t.Errorf("the container is %s", state)
		}
		env.Stop(ctr, 0)
	})
}

// TestSystemd: systemd hears that the daemon is ready, again and again that it
// lives, no more while it hangs, and that it stops.
func TestSystemd(t *testing.T) {
	const period = 3 * time.Second
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	hear := func(within time.Duration) string {
		buf := make([]byte, 256)
		if err := conn.SetReadDeadline(time.Now().Add(within)); err != nil {
			t.Fatal(err)
		}
		n, err := conn.Read(buf)
		if err != nil {
			return ""
		}
		return string(buf[:n])
	}
	environ := []string{"NOTIFY_SOCKET=" + path, fmt.Sprintf("WATCHDOG_USEC=%d", period.Microseconds())}
	env := testenv.Start(t, testenv.Options{Environ: environ, Registry: shared.Registry(t)})
	if got := hear(20 * time.Second); got != "READY=1" {
		t.Fatalf("first it says %q", got)
	}
	for range 3 {
		if got := hear(20 * time.Second); got != "WATCHDOG=1" {
			t.Fatalf("then it says %q", got)
		}
	}
	if err := syscall.Kill(env.DaemonPID(), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for hear(10*time.Millisecond) != "" { // what was said before
	}
	if got := hear(period); got != "" {
		t.Errorf("while it hangs it says %q", got)
	}
	if err := syscall.Kill(env.DaemonPID(), syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if got := hear(20 * time.Second); got != "WATCHDOG=1" {
		t.Errorf("afterwards it says %q", got)
	}
	env.StopDaemon()
	for said := hear(time.Second); said != "STOPPING=1"; said = hear(time.Second) {
		if said != "WATCHDOG=1" {
			t.Fatalf("at the end it says %q", said)
		}
	}
	env.StartDaemon()
}
