package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/internal/cgroup"
	"github.com/gantry-cri/gantry/internal/node"
)

// A server is one CRI daemon, with directories, a network and a cgroup of its own.
type server struct {
	name   who
	dir    string // for everything that lasts
	run    string // on a tmpfs
	cgroup string // the daemon and all of its pods are below it
	socket string
	argv   []string
	limit  time.Duration // of one call
	node   node.Facts

	conn    *grpc.ClientConn
	runtime runtimeapi.RuntimeServiceClient
	images  runtimeapi.ImageServiceClient

	cmd   *exec.Cmd
	ended chan struct{} // closed when the daemon has ended
}

// newServer writes the configuration of the server with the name. Number makes
// its network differ from the others'.
func (b *bench) newServer(name who, number int) (*server, error) {
	s := &server{
		name:   name,
		dir:    filepath.Join(b.dir, string(name)),
		run:    filepath.Join(runDir(b.dir), string(name)),
		cgroup: cgroupOf(b.dir) + "/" + string(name),
		limit:  b.plan.call,
		node:   b.node,
	}
	s.socket = filepath.Join(s.run, "cri.sock")
	for _, dir := range []string{s.dir, s.run, s.netDir()} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
	}
	conflist, err := b.conflist(string(name), number)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(s.netDir(), "10-bench.conflist"), conflist, 0o644); err != nil {
		return nil, err
	}
	switch name {
	case containerd:
		s.argv, err = b.configureContainerd(s)
	case gantry:
		s.argv, err = b.configureGantry(s)
	}
	if err != nil {
		return nil, err
	}
	if err := cgroup.Create(b.node, s.daemonCgroup()); err != nil {
		return nil, err
	}
	return s, s.connect()
}

func (s *server) netDir() string { return filepath.Join(s.dir, "net.d") }

// daemonCgroup holds the daemon and what it starts outside of pods.
func (s *server) daemonCgroup() string { return s.cgroup + "/daemon" }

func (s *server) connect() error {
	conn, err := grpc.NewClient("unix://"+s.socket,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: time.Second}),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true), grpc.MaxCallRecvMsgSize(64<<20)))
	if err != nil {
		return err
	}
	s.conn = conn
	s.runtime = runtimeapi.NewRuntimeServiceClient(conn)
	s.images = runtimeapi.NewImageServiceClient(conn)
	return nil
}

// start starts the daemon and waits until runtime and network are ready.
func (s *server) start(ctx context.Context) error {
	if err := s.launch(); err != nil {
		return err
	}
	for deadline := time.Now().Add(30 * time.Second); ; {
		err := s.ready(ctx)
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) || s.hasEnded() {
			return fmt.Errorf("%s does not become ready: %w", s.name, err)
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
}

// launch starts the daemon's process and puts it into the server's cgroup
// before it can have started any other.
func (s *server) launch() error {
	log, err := os.OpenFile(s.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(s.argv[0], s.argv[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // how it ended is in its log
		close(ended)
	}()
	s.cmd, s.ended = cmd, ended
	return s.place(cmd.Process.Pid)
}

// place moves a process to the daemon's cgroup in the hierarchies that limit
// nothing: the one that tells where a process belongs, and processor time.
func (s *server) place(pid int) error {
	var errs []error
	for _, dir := range accounts(s.node) {
		procs := filepath.Join(dir, s.daemonCgroup(), "cgroup.procs")
		errs = append(errs, os.WriteFile(procs, []byte(strconv.Itoa(pid)), 0))
	}
	return errors.Join(errs...)
}

func (s *server) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	s.conn.ResetConnectBackoff()
	resp, err := s.runtime.Status(ctx, &runtimeapi.StatusRequest{})
	if err != nil {
		return err
	}
	for _, c := range resp.Status.GetConditions() {
		if !c.Status && (c.Type == runtimeapi.RuntimeReady || c.Type == runtimeapi.NetworkReady) {
			return fmt.Errorf("%s is false: %s: %s", c.Type, c.Reason, c.Message)
		}
	}
	return nil
}

func (s *server) hasEnded() bool {
	select {
	case <-s.ended:
		return true
	default:
		return false
	}
}

// kill ends the daemon by the signal, and by SIGKILL after 10 s.
func (s *server) kill(sig syscall.Signal) error {
	if s.cmd == nil || s.hasEnded() {
		return nil
	}
	_ = s.cmd.Process.Signal(sig)
	select {
	case <-s.ended:
		return nil
	case <-time.After(10 * time.Second):
		_ = s.cmd.Process.Kill()
		<-s.ended
		return fmt.Errorf("%s did not end within 10 s of %s", s.name, sig)
	}
}

// close ends the server for good.
func (s *server) close() {
	_ = s.kill(syscall.SIGKILL)
	_ = s.conn.Close()
}

func (s *server) logFile() string { return filepath.Join(s.dir, "daemon.log") }

func (s *server) logTail(lines int) string {
	data, err := os.ReadFile(s.logFile())
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(data)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// pause waits, or returns ctx's error when that comes first.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return errors.Join(errors.New("the benchmark ran out of time"), ctx.Err())
	case <-time.After(d):
		return nil
	}
}
