package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"github.com/gantry-cri/gantry/internal/config"
	"github.com/gantry-cri/gantry/internal/metrics"
	"github.com/gantry-cri/gantry/internal/server"
)

// stopWait is how long calls in flight may take to end when the daemon is told
// to stop. What is cut off is finished by the next daemon.
const stopWait = 5 * time.Second

// handshakeWait is how long a connection may take to begin to speak HTTP/2.
const handshakeWait = 20 * time.Second

// serve runs the daemon until a signal ends it. There is nothing to shut
// down: pods do not need the daemon, and starting is recovery.
func serve(ctx context.Context, flags *config.Flags) error {
	cfg, err := config.Load(flags)
	if err != nil {
		return err
	}
	log, level, err := newLogger(cfg.Config)
	if err != nil {
		return err
	}
	reloads := make(chan os.Signal, 1) // see reloadOn
	signal.Notify(reloads, unix.SIGHUP)
	if os.Geteuid() != 0 {
		return errors.New("gantryd must run as root")
	}
	unix.Umask(0o022)
	lock, err := lockInstance(cfg.RunRoot, cfg.Root)
	if err != nil {
		return err
	}
	defer lock.release()

	ctx, stop := signal.NotifyContext(ctx, unix.SIGTERM, unix.SIGINT)
	defer stop()
	dumpOnSignal(ctx, filepath.Join(cfg.RunRoot, "goroutines"), log)
	began := time.Now()
	d, err := assemble(ctx, cfg, log, level)
	if err != nil {
		return err
	}
	defer d.close()
	if err := d.recover(ctx); err != nil {
		return err
	}
	m := metrics.New(version, commit, d.snapshot)
	stopControl, err := serveControl(d, m, cfg.Config, log)
	if err != nil {
		return err
	}
	defer stopControl()
	defer serveMetrics(cfg.MetricsListen, m, log)()
	listener, err := listen(cfg.Listen)
	if err != nil {
		return err
	}
	g := grpc.NewServer(
		grpc.ConnectionTimeout(handshakeWait),
		grpc.MaxRecvMsgSize(cfg.GRPCMaxMessageSize),
		grpc.MaxSendMsgSize(cfg.GRPCMaxMessageSize),
		grpc.ChainUnaryInterceptor(newTrimmer().unary, server.Unary(log, m.Begin)),
		grpc.StreamInterceptor(server.Stream(log, m.Begin)),
	)
	d.server.Register(g)
	log.Info("serving the CRI", "listen", cfg.Listen, "streams", d.streams.Addr(), "version", version, "commit", commit,
		"pods", len(d.pods.List(nil)), "containers", len(d.containers.List(nil)), "started_in", time.Since(began).Round(time.Millisecond))
	notify(log, "READY=1")
	go func() {
		if err := d.streams.Serve(); err != nil {
			log.Error("exec, attach and port-forward are not served any more", "err", err)
		}
	}()
	defer reloadOn(ctx, reloads, func(ctx context.Context) { d.reload(ctx, flags) })()
	go watchdog(ctx, cfg.Listen, log)
	context.AfterFunc(ctx, d.pods.EndEvents) // they would keep the calls from ending
	return serveUntil(ctx, g, listener, log)
}

func serveUntil(ctx context.Context, g *grpc.Server, l net.Listener, log *slog.Logger) error {
	failed := make(chan error, 1)
	go func() { failed <- g.Serve(l) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	log.Info("stopping; pods go on")
	notify(log, "STOPPING=1")
	timer := time.AfterFunc(stopWait, g.Stop)
	defer timer.Stop()
	g.GracefulStop()
	return nil
}

// listen makes the CRI socket, for root only. The instance's lock is held, so
// that a socket that is there is a dead daemon's.
func listen(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() != os.ModeSocket {
		return nil, fmt.Errorf("listen: %s exists and is no socket", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	old := unix.Umask(0o177)
	defer unix.Umask(old)
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	return l, nil
}
