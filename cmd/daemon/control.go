package main

import (
	"errors"
	"log/slog"
	"net/http"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/gantry-cri/gantry/internal/config"
	"github.com/gantry-cri/gantry/internal/control"
	"github.com/gantry-cri/gantry/internal/metrics"
)

// headerWait is how long a client of the control socket may take to ask.
const headerWait = 10 * time.Second

// controlClient returns a client of the daemon that has the flags. A
// configuration that can't be used, of which the daemon knows nothing or tells
// itself, is no obstacle.
func controlClient(cmd *cobra.Command, flags *config.Flags) *control.Client {
	runRoot, err := config.RunRoot(flags)
	if err != nil {
		cmd.PrintErrln("gantryd: warning:", err)
	}
	return control.NewClient(filepath.Join(runRoot, control.SocketName))
}

// serveControl answers operators until the returned function is called.
func serveControl(d *daemon, m *metrics.Metrics, cfg config.Config, log *slog.Logger) (stop func(), err error) {
	listener, err := listen(filepath.Join(cfg.RunRoot, control.SocketName))
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("/", control.Handler(d.images, d.statusOf(m, cfg), log))
	mux.Handle("GET /metrics", m.Handler())
	srv := &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: headerWait,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	go func() {
		if err := srv.Serve(listener); err != nil && !errors.Is(err, http.ErrServerClosed) {
			log.Error("the control socket is not served any more", "err", err)
		}
	}()
	return func() { _ = srv.Close() }, nil // it only cuts connections off
}
