//go:build figures

package kubelet

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gantry-cri/gantry/test/testenv"
)

// idlePods is how many pods come up, and idle for idleTime.
const (
	idlePods = 60
	idleTime = 3 * time.Minute
)

// TestFigures is make bench-kubelet: how long the kubelet says that pods take to
// start, and what processor time goes by while they idle with probes.
func TestFigures(t *testing.T) {
	c := startCluster(t, testenv.Runtimes()[0], 1)
	start := time.Now()
	c.apply(t, fmt.Sprintf(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: idle}
spec:
  replicas: %d
  selector: {matchLabels: {app: idle}}
  template:
    metadata: {labels: {app: idle}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: nginx
        imagePullPolicy: IfNotPresent
        readinessProbe: {httpGet: {port: 80, path: /}, periodSeconds: 10}
        livenessProbe: {exec: {command: ["true"]}, periodSeconds: 10}
`, idlePods))
	c.kubectl(t, "rollout", "status", "deployment/idle", "--timeout=600s")
	ready := time.Since(start)
	metrics, err := c.get("/metrics")
	must(t, err)

	time.Sleep(20 * time.Second)
	before, began := c.spent(t), time.Now()
	time.Sleep(idleTime)
	after, took := c.spent(t), time.Since(began)

	name := "gantry"
	if testenv.Peer() {
		name = "containerd"
	}
	fmt.Printf("\n%s with %s: %d pods, each with an HTTP and an exec probe every 10 s\n", name, c.env.RuntimeName, idlePods)
	fmt.Printf("  all ready after                        %6.1f s\n", ready.Seconds())
	for _, what := range []string{"kubelet_pod_start_sli_duration_seconds", "kubelet_pod_start_duration_seconds", "kubelet_run_podsandbox_duration_seconds"} {
		h, err := histogramOf(metrics, what)
		must(t, err)
		fmt.Printf("  %-38s %s\n", what, h)
	}
	perHour := func(d time.Duration) float64 { return d.Seconds() * float64(time.Hour) / float64(took) }
	fmt.Printf("  processor time, idle: daemon           %6.0f s an hour\n", perHour(after.daemon-before.daemon))
	fmt.Printf("  processor time, idle: kubelet          %6.0f s an hour\n", perHour(after.kubelet-before.kubelet))
	fmt.Printf("  processor time, idle: whole machine    %6.0f s an hour\n\n", perHour(after.machine-before.machine))
}

// spent is processor time: user's and system's.
type spent struct {
	daemon, kubelet time.Duration // with the processes that they have waited for
	machine         time.Duration
}

func (c *cluster) spent(t *testing.T) spent {
	t.Helper()
	return spent{processTime(t, c.env.DaemonPID()), processTime(t, c.cmd.Process.Pid), machineTime(t)}
}

const tick = 10 * time.Millisecond // USER_HZ is 100 on every platform

// processTime is the time of a process and of its children that it waited for.
func processTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	must(t, err)
	f := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
	return ticks(t, f[11:15])
}

// machineTime is the time in which a processor was not idle.
func machineTime(t *testing.T) time.Duration {
	t.Helper()
	data, err := os.ReadFile("/proc/stat")
	must(t, err)
	line, _, _ := strings.Cut(string(data), "\n")
	f := strings.Fields(line)
	return ticks(t, slices.Concat(f[1:4], f[6:8])) // without idle, iowait and steal
}

func ticks(t *testing.T, numbers []string) (sum time.Duration) {
	t.Helper()
	for _, text := range numbers {
		n, err := strconv.ParseInt(text, 10, 64)
		must(t, err)
		sum += time.Duration(n) * tick
	}
	return sum
}

// A histogram of seconds, of all label values together.
type histogram struct {
	sum, count float64
	below      map[float64]float64 // how many were at most so many seconds
}

func histogramOf(metrics, name string) (histogram, error) {
	h := histogram{below: map[float64]float64{}}
	for line := range strings.Lines(metrics) {
		series, text, _ := strings.Cut(strings.TrimSpace(line), " ")
		value, err := strconv.ParseFloat(text, 64)
		if err != nil || !strings.HasPrefix(series, name+"_") {
			continue
		}
		kind, labels, _ := strings.Cut(strings.TrimPrefix(series, name+"_"), "{")
		switch kind {
		case "sum":
			h.sum += value
		case "count":
			h.count += value
		case "bucket":
			_, bound, _ := strings.Cut(labels, `le="`)
			bound, _, _ = strings.Cut(bound, `"`)
			seconds, err := strconv.ParseFloat(bound, 64)
			if err != nil {
				return h, err
			}
			h.below[seconds] += value
		}
	}
	if h.count == 0 {
		return h, errors.New("the kubelet has counted nothing in " + name)
	}
	return h, nil
}

// atMost is the upper bound of the bucket that holds the quantile.
func (h histogram) atMost(quantile float64) float64 {
	bounds := make([]float64, 0, len(h.below))
	for bound, n := range h.below {
		if n >= quantile*h.count {
			bounds = append(bounds, bound)
		}
	}
	return slices.Min(bounds)
}

func (h histogram) String() string {
	return fmt.Sprintf("mean %.2f s, half within %g s, 99 %% within %g s (%g)", h.sum/h.count, h.atMost(0.5), h.atMost(0.99), h.count)
}
