package main

import (
	"math"
	"slices"
	"time"
)

// who a figure is about.
type who string

const (
	bare       who = "floor"
	containerd who = "containerd"
	gantry     who = "gantry"
)

// results holds every sample: by what was measured, and for whom. Durations are
// in milliseconds.
type results map[string]map[who][]float64

func (r results) add(what string, w who, value float64) {
	if r[what] == nil {
		r[what] = map[who][]float64{}
	}
	r[what][w] = append(r[what][w], value)
}

func (r results) addTime(what string, w who, d time.Duration) {
	r.add(what, w, float64(d)/float64(time.Millisecond))
}

func (r results) median(what string, w who) (float64, bool) { return quantile(r[what][w], 0.5) }

// quantile is the smallest sample that at least the share q of all is not above
// (for the median of an even number, the mean of the middle two). It is false
// without samples.
func quantile(samples []float64, q float64) (float64, bool) {
	if len(samples) == 0 {
		return 0, false
	}
	sorted := slices.Sorted(slices.Values(samples))
	n := len(sorted)
	if q == 0.5 && n%2 == 0 {
		return (sorted[n/2-1] + sorted[n/2]) / 2, true
	}
	return sorted[max(0, int(math.Ceil(q*float64(n)))-1)], true
}
