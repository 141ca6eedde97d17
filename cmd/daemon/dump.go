package main

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"os/signal"
	"runtime/pprof"

	"golang.org/x/sys/unix"
)

// dumpOnSignal writes to a file on SIGUSR1 what every goroutine does, until ctx
// ends. Whoever waits for the file sees it whole.
func dumpOnSignal(ctx context.Context, file string, log *slog.Logger) {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, unix.SIGUSR1)
	go func() {
		for {
			select {
			case <-asked:
				if err := dump(file); err != nil {
					log.Error("SIGUSR1: goroutines not written", "err", err)
				} else {
					log.Info("SIGUSR1: what the goroutines do is written", "file", file)
				}
			case <-ctx.Done():
				return
			}
		}
	}()
}

func dump(file string) error {
	const grouped = 1 // equal ones together, with their number
	var b bytes.Buffer
	if err := pprof.Lookup("goroutine").WriteTo(&b, grouped); err != nil {
		return err
	}
	if err := os.WriteFile(file+".new", b.Bytes(), 0o600); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}
