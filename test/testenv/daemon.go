package testenv

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// daemon is one process of the daemon, started by an Env.
type daemon struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed when the process is gone and reaped
	err  error         // of Wait; set before done is closed
}

func startDaemon(cmd *exec.Cmd, log string) (*daemon, error) {
	f, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	cmd.Stdout, cmd.Stderr = f, f
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	d := &daemon{cmd: cmd, log: log, done: make(chan struct{})}
	go func() {
		d.err = cmd.Wait()
		close(d.done)
	}()
	return d, nil
}

func (d *daemon) running() bool {
	select {
	case <-d.done:
		return false
	default:
		return true
	}
}

// stop sends sig and waits; it reports whether the process ended in time.
func (d *daemon) stop(sig syscall.Signal, within time.Duration) bool {
	_ = d.cmd.Process.Signal(sig)
	select {
	case <-d.done:
		return true
	case <-time.After(within):
		_ = d.cmd.Process.Kill()
		<-d.done
		return false
	}
}

func (d *daemon) showLog(t testing.TB) {
	if d == nil {
		return
	}
	data, err := os.ReadFile(d.log)
	if err != nil {
		t.Logf("the daemon's log: %v", err)
		return
	}
	lines := strings.Split(string(data), "\n")
	if len(lines) > 150 {
		lines = lines[len(lines)-150:]
	}
	t.Logf("the end of the daemon's log:\n%s", strings.Join(lines, "\n"))
}

// Args are the arguments that make an instance fully private.
func (e *Env) Args() []string {
	args := []string{
		"--config", e.path("gantry.toml"),
		"--root", e.Root,
		"--run-root", e.RunRoot,
		"--listen", e.Socket,
		"--cni-conf-dir", e.CNIConfDir,
		"--registries-conf", e.path("registries.conf"),
		"--policy", e.path("policy.json"),
		"--default-runtime", e.RuntimeName,
	}
	for _, dir := range e.pluginDir {
		args = append(args, "--cni-bin-dir", dir)
	}
	return args
}

// StartDaemon starts the daemon and waits until it answers Version. It must not
// run already.
func (e *Env) StartDaemon() {
	e.t.Helper()
	cmd, err := e.command()
	if err != nil {
		e.t.Fatal(err)
	}
	e.daemon, err = startDaemon(cmd, e.path("daemon.log"))
	if err != nil {
		e.t.Fatalf("start the daemon: %v", err)
	}
	if err := e.waitReady(20 * time.Second); err != nil {
		e.t.Fatal(err)
	}
}

func (e *Env) command() (*exec.Cmd, error) {
	if os.Getenv(peerVariable) != "" {
		return e.peerCommand()
	}
	line := slices.Concat(e.enter, []string{Binary(e.t, "gantryd")}, e.Args())
	cmd := exec.Command(line[0], line[1:]...)
	cmd.Env = append(os.Environ(), e.environ...)
	return cmd, nil
}

func (e *Env) waitReady(limit time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	ready := make(chan error, 1)
	go func() {
		e.conn.ResetConnectBackoff()
		_, err := e.Runtime.Version(ctx, &runtimeapi.VersionRequest{})
		// The connection may be one to a daemon that was killed; a peer listens before it can answer.
		for err != nil && ctx.Err() == nil {
			time.Sleep(50 * time.Millisecond)
			_, err = e.Runtime.Version(ctx, &runtimeapi.VersionRequest{})
		}
		ready <- err
	}()
	select {
	case err := <-ready:
		if err != nil {
			return fmt.Errorf("the daemon does not answer Version: %w", err)
		}
		return nil
	case <-e.daemon.done:
		return fmt.Errorf("the daemon ended at once: %v", e.daemon.err)
	}
}

// Kill9 kills the daemon with SIGKILL.
func (e *Env) Kill9() {
	e.t.Helper()
	if !e.daemon.stop(syscall.SIGKILL, 10*time.Second) {
		e.t.Error("the daemon outlived SIGKILL by 10 s")
	}
}

// StopDaemon ends the daemon in the orderly way; no-op when it does not run.
func (e *Env) StopDaemon() {
	e.t.Helper()
	if e.daemon == nil || !e.daemon.running() {
		return
	}
	if !e.daemon.stop(syscall.SIGTERM, 10*time.Second) {
		e.t.Error("the daemon did not end within 10 s of SIGTERM")
	}
}

// DaemonPID returns the daemon's process id.
func (e *Env) DaemonPID() int { return e.daemon.cmd.Process.Pid }
