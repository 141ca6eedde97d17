package main

import (
	"errors"
	"log/slog"
	"net"
	"net/http"

	"github.com/gantry-cri/gantry/internal/container"
	"github.com/gantry-cri/gantry/internal/metrics"
	"github.com/gantry-cri/gantry/internal/sandbox"
)

// snapshot looks at what is in memory.
func (d *daemon) snapshot() metrics.Snapshot {
	s := metrics.Snapshot{
		Pods: map[string]int{}, Containers: map[string]int{},
		Pulls:    len(d.images.Pulls()),
		Damaged:  len(d.pods.Damaged()) + len(d.storage.Problems()) + len(d.network.Status().Damaged),
		Problems: len(d.problems()),
	}
	for _, state := range []sandbox.State{sandbox.Ready, sandbox.Broken, sandbox.Stopping, sandbox.Stopped} {
		s.Pods[state.String()] = 0
	}
	for _, state := range []container.State{container.Created, container.Running, container.Exited} {
		s.Containers[state.String()] = 0
	}
	for _, p := range d.pods.List(nil) {
		s.Pods[p.Status().State.String()]++
	}
	for _, c := range d.containers.List(nil) {
		s.Containers[c.Status().State.String()]++
	}
	for _, img := range d.images.List() {
		s.Images++
		s.ImageBytes += img.Size
	}
	return s
}

// serveMetrics answers a collector on the address, host:port; on none if it is
// "", or if it can't be had, which the log tells: pods matter more. The returned
// function ends that.
func serveMetrics(address string, m *metrics.Metrics, log *slog.Logger) (stop func()) {
	if address == "" {
		return func() {}
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		log.Error("metrics_listen: metrics are on the control socket only", "err", err)
		return func() {}
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", m.Handler())
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: headerWait, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn)}
	go func() {
		if err := srv.Serve(listener); err != nil && !errors.Is(err, http.ErrServerClosed) {
			log.Error("metrics are not served any more", "err", err)
		}
	}()
	return func() { _ = srv.Close() } // it only cuts connections off
}
