package main

import (
	"fmt"
	"strings"
)

// A row is one line of the table. A figure that was not measured is absent.
type row struct {
	What   string            `json:"what"`
	Unit   string            `json:"unit"`
	Value  map[who]float64   `json:"value"` // the median of the samples
	P95    map[who]float64   `json:"p95,omitempty"`
	Floor  float64           `json:"ratio_to_floor,omitempty"`      // Gantry's value by the floor's
	Peer   float64           `json:"ratio_to_containerd,omitempty"` // by containerd's
	Budget string            `json:"budget,omitempty"`
	Met    string            `json:"met,omitempty"` // yes, no or "" (no budget, or nothing to compare with)
	All    map[who][]float64 `json:"samples,omitempty"`
}

// A budget is a limit that Gantry's value must keep. The table of them is in
// the design; those that compare with a peer compare with the one that is
// measured here.
type budget struct {
	of      who // the limit is factor times the value of this one; "" = factor itself
	factor  float64
	atLeast bool
}

// text is the limit in words.
func (g budget) text() string {
	sign := "≤"
	if g.atLeast {
		sign = "≥"
	}
	switch g.of {
	case "":
		return fmt.Sprintf("%s %g", sign, g.factor)
	default:
		return fmt.Sprintf("%s %g × %s", sign, g.factor, g.of)
	}
}

// met compares; "" when a value is missing.
func (g budget) met(values map[who]float64) string {
	value, ok := values[gantry]
	limit := g.factor
	if g.of != "" {
		base, there := values[g.of]
		ok, limit = ok && there, limit*base
	}
	switch {
	case !ok:
		return ""
	case g.atLeast && value >= limit, !g.atLeast && value <= limit:
		return "yes"
	}
	return "no"
}

// line describes a row before it is filled.
type line struct {
	what   string
	unit   string
	budget *budget
}

// lines are the rows in the order of the table.
func lines() []line {
	return []line{
		{podUp, "ms", &budget{containerd, 0.6, false}},
		{runPod, "ms", nil},
		{createOne, "ms", &budget{bare, 1.3, false}},
		{startOne, "ms", &budget{bare, 1.5, false}},
		{execTrue, "ms", &budget{bare, 1.3, false}},
		{podDown, "ms", nil},
		{cniAdd, "ms", nil},
		{cniDel, "ms", nil},
		{upRate, "/s", &budget{"", 30, true}},
		{downRate, "/s", &budget{"", 40, true}},
		{upCPU, "ms", nil},
		{downCPU, "ms", nil},
		{manyUp, "ms", &budget{containerd, 0.6, false}},
		{manyCreate, "ms", &budget{bare, 1.3, false}},
		{growth, "×", &budget{"", 1.1, false}},
		{manyStart, "ms", &budget{bare, 1.5, false}},
		{manyDown, "ms", nil},
		{idleMemory, "MiB", &budget{"", 40, false}},
		{podMemory, "MiB", &budget{"", 0.2, false}},
		{podOverhead, "MiB", nil},
		{podHelpers, "MiB", nil},
		{podDaemon, "MiB", nil},
		{podProcess, "MiB", nil},
		{listCtrs, "ms", nil},
		{listPods, "ms", nil},
		{listStats, "ms", &budget{"", 40, false}},
		{podStats, "ms", &budget{"", 40, false}},
		{podMetrics, "ms", &budget{"", 40, false}},
		{rawMetrics, "ms", nil},
		{restart, "s", &budget{"", 1, false}},
		{pullNginx, "ms", nil},
		{pullGzip, "ms", &budget{bare, 1.3, false}},
		{pullZstd, "ms", nil},
		{pullLayers, "ms", &budget{"", 416, false}},
		{pullAgain, "ms", nil},
		{pullSame, "ms", nil},
		{pullUpdate, "ms", nil},
		{updateBytes, "MB", nil},
		{pullMemory, "MiB", nil},
		{logRate, "MiB/s", &budget{"", 300, true}},
		{attachRate, "MiB/s", nil},
		{soakMemory, "MiB", &budget{"", 4, false}},
	}
}

// rows makes the table of the results.
func (r results) rows(p plan) []row {
	r.addGrowth()
	var rows []row
	for _, l := range lines() {
		row := row{
			What: strings.NewReplacer("N pods", fmt.Sprintf("%d pods", p.pods), "N execs", fmt.Sprintf("%d execs", p.soak)).Replace(l.what),
			Unit: l.unit, Value: map[who]float64{}, P95: map[who]float64{}, All: r[l.what],
		}
		for w, samples := range r[l.what] {
			row.Value[w], _ = quantile(samples, 0.5)
			if len(samples) >= 5 {
				row.P95[w], _ = quantile(samples, 0.95)
			}
		}
		row.Floor, row.Peer = ratio(row.Value, bare), ratio(row.Value, containerd)
		if l.budget != nil {
			row.Budget, row.Met = l.budget.text(), l.budget.met(row.Value)
		}
		rows = append(rows, row)
	}
	return rows
}

// addGrowth computes how much slower creation is among many pods.
func (r results) addGrowth() {
	for _, w := range []who{bare, containerd, gantry} {
		one, ok := r.median(createOne, w)
		many, also := r.median(manyCreate, w)
		if ok && also {
			r.add(growth, w, many/one)
		}
	}
}

func ratio(values map[who]float64, to who) float64 {
	value, base := values[gantry], values[to]
	if value == 0 || base == 0 {
		return 0
	}
	return value / base
}
