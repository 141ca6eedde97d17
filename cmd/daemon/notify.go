package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// notifyWait is how long systemd may have no room for a message.
const notifyWait = 5 * time.Second

// notify tells systemd, where it supervises the daemon (sd_notify(3)).
func notify(log *slog.Logger, state string) {
	name := os.Getenv("NOTIFY_SOCKET")
	if name == "" {
		return
	}
	conn, err := net.Dial("unixgram", name)
	if err == nil {
		err = conn.SetWriteDeadline(time.Now().Add(notifyWait))
		if err == nil {
			_, err = conn.Write([]byte(state))
		}
		err = errors.Join(err, conn.Close())
	}
	if err != nil {
		log.Warn("systemd not notified", "err", err)
	}
}

// watchdogPeriod is within what time systemd wants to hear of the daemon
// (sd_watchdog_enabled(3)); 0 where it does not.
func watchdogPeriod(getenv func(string) string, pid int) time.Duration {
	if of := getenv("WATCHDOG_PID"); of != "" && of != strconv.Itoa(pid) {
		return 0
	}
	usec, err := strconv.ParseInt(getenv("WATCHDOG_USEC"), 10, 64)
	if err != nil || usec <= 0 {
		return 0
	}
	return time.Duration(usec) * time.Microsecond
}

// watchdog tells systemd again and again that the daemon lives, each time after
// its socket has answered: a daemon that does not answer is to be started anew.
// It ends with ctx.
func watchdog(ctx context.Context, socket string, log *slog.Logger) {
	period := watchdogPeriod(os.Getenv, os.Getpid())
	if period == 0 {
		return
	}
	tick := time.NewTicker(period / 3)
	defer tick.Stop()
	for {
		if err := askOnce(ctx, socket, period/3); err == nil {
			notify(log, "WATCHDOG=1")
		} else if ctx.Err() == nil {
			log.Error("the daemon does not answer itself; systemd is not told that it lives", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// askOnce has the daemon answer Status, by a connection of its own.
func askOnce(ctx context.Context, socket string, limit time.Duration) (err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	_, err = runtimeapi.NewRuntimeServiceClient(conn).Status(ctx, &runtimeapi.StatusRequest{}, grpc.WaitForReady(true))
	return err
}
