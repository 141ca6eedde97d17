package testenv

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
)

// Metric asks the daemon's control socket for a metric: by its name, with its
// labels as they are written.
func (e *Env) Metric(name string) float64 {
	e.t.Helper()
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(e.RunRoot, "control.sock"))
		},
	}}
	resp, err := client.Get("http://gantry/metrics")
	if err != nil {
		e.t.Fatal(err)
	}
	defer resp.Body.Close()
	value, err := FindMetric(resp, name)
	if err != nil {
		e.t.Fatal(err)
	}
	return value
}

// FindMetric finds a metric in an answer.
func FindMetric(resp *http.Response, name string) (float64, error) {
	if resp.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("metrics: %s", resp.Status)
	}
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			return strconv.ParseFloat(value, 64)
		}
	}
	return 0, fmt.Errorf("there is no metric %s", name)
}
