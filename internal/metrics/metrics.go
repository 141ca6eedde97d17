// Package metrics counts what the daemon does, and tells it and what it finds in
// Prometheus's text format:
// https://prometheus.io/docs/instrumenting/exposition_formats/
package metrics

import (
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Snapshot is what is looked at when somebody asks.
type Snapshot struct {
	Pods       map[string]int // by state, as the CRI names it
	Containers map[string]int // the same
	Images     int
	ImageBytes uint64 // of all images; shared layers count for each
	Pulls      int    // under way
	Damaged    int    // records that can't be read and were put aside
	Problems   int    // of all kinds, as the verbose Status lists them
}

// Metrics is safe for concurrent use. Make one with New.
type Metrics struct {
	registry *prometheus.Registry
	calls    *prometheus.HistogramVec

	mu       sync.Mutex // guards inFlight
	inFlight map[*Call]bool
}

// durations are the upper bounds of the histogram of calls, in seconds: what
// only looks takes microseconds, a pod some hundred milliseconds, a pull minutes.
var durations = []float64{.0001, .001, .01, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 120, 600}

// New returns the metrics of a daemon. look is called for each answer; it must
// not wait for anything.
func New(version, commit string, look func() Snapshot) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		inFlight: make(map[*Call]bool),
		calls: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "gantry_rpc_duration_seconds", Help: "Time that calls of the CRI took, by method and gRPC code.", Buckets: durations,
		}, []string{"rpc", "code"}),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "gantry_build_info", Help: "1, with the daemon's version.", ConstLabels: prometheus.Labels{"version": version, "commit": commit},
	})
	build.Set(1)
	m.registry.MustRegister(m.calls, build, looker{look}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Begin notes that a call has begun; the function that it returns counts it as
// ended, with its code.
func (m *Metrics) Begin(rpc string) (end func(code string)) {
	c := &Call{rpc, time.Now()}
	m.mu.Lock()
	m.inFlight[c] = true
	m.mu.Unlock()
	return func(code string) {
		m.mu.Lock()
		delete(m.inFlight, c)
		m.mu.Unlock()
		m.calls.WithLabelValues(rpc, code).Observe(time.Since(c.Since).Seconds())
	}
}

// Call is one that has not ended.
type Call struct {
	RPC   string    `json:"rpc"`
	Since time.Time `json:"since"`
}

// InFlight lists the calls that have not ended, the oldest first.
func (m *Metrics) InFlight() []Call {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]Call, 0, len(m.inFlight))
	for c := range m.inFlight {
		out = append(out, *c)
	}
	slices.SortFunc(out, func(a, b Call) int { return a.Since.Compare(b.Since) })
	return out
}

// Handler answers with all metrics.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

var (
	pods       = prometheus.NewDesc("gantry_pods", "Pods by state.", []string{"state"}, nil)
	containers = prometheus.NewDesc("gantry_containers", "Containers by state.", []string{"state"}, nil)
	images     = prometheus.NewDesc("gantry_images", "Images that are stored.", nil, nil)
	imageBytes = prometheus.NewDesc("gantry_image_bytes", "Size of all images, unpacked; shared layers count for each.", nil, nil)
	pulls      = prometheus.NewDesc("gantry_image_pulls", "Pulls under way.", nil, nil)
	damaged    = prometheus.NewDesc("gantry_damaged_records", "Records of pods, containers, networks and images that could not be read and were put aside.", nil, nil)
	problems   = prometheus.NewDesc("gantry_problems", "What the verbose Status lists as wrong.", nil, nil)
)

// looker tells a snapshot.
type looker struct{ look func() Snapshot }

func (looker) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{pods, containers, images, imageBytes, pulls, damaged, problems} {
		out <- d
	}
}

func (l looker) Collect(out chan<- prometheus.Metric) {
	s := l.look()
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	for state, n := range s.Pods {
		gauge(pods, float64(n), state)
	}
	for state, n := range s.Containers {
		gauge(containers, float64(n), state)
	}
	gauge(images, float64(s.Images))
	gauge(imageBytes, float64(s.ImageBytes))
	gauge(pulls, float64(s.Pulls))
	gauge(damaged, float64(s.Damaged))
	gauge(problems, float64(s.Problems))
}
