package main

import (
	"strings"
	"testing"
)

func TestQuantileOfFewSamples(t *testing.T) {
	twenty := make([]float64, 20)
	for i := range twenty {
		twenty[i] = float64(20 - i)
	}
	for _, c := range []struct {
		samples []float64
		q, want float64
	}{
		{[]float64{7}, 0.5, 7},
		{[]float64{7}, 0.95, 7},
		{[]float64{3, 1, 2}, 0.5, 2},
		{[]float64{4, 1}, 0.5, 2.5},
		{twenty, 0.5, 10.5},
		{twenty, 0.95, 19},
	} {
		if got, ok := quantile(c.samples, c.q); !ok || got != c.want {
			t.Errorf("quantile %v of %v is %v, %v; want %v", c.q, c.samples, got, ok, c.want)
		}
	}
	if _, ok := quantile(nil, 0.5); ok {
		t.Error("no samples have a median")
	}
}

func TestBudgets(t *testing.T) {
	for _, c := range []struct {
		budget budget
		values map[who]float64
		want   string
	}{
		{budget{"", 30, true}, map[who]float64{gantry: 31}, "yes"},
		{budget{"", 30, true}, map[who]float64{gantry: 29}, "no"},
		{budget{bare, 1.5, false}, map[who]float64{gantry: 15, bare: 10}, "yes"},
		{budget{bare, 1.5, false}, map[who]float64{gantry: 16, bare: 10}, "no"},
		{budget{containerd, 0.6, false}, map[who]float64{gantry: 16, bare: 10}, ""},
		{budget{"", 40, false}, map[who]float64{containerd: 1}, ""},
	} {
		if got := c.budget.met(c.values); got != c.want {
			t.Errorf("%s with %v: met %q, want %q", c.budget.text(), c.values, got, c.want)
		}
	}
}

func TestTableHoldsEveryLineOnce(t *testing.T) {
	r := results{}
	for i := range 6 {
		r.add(createOne, bare, 10+float64(i))
		r.add(createOne, gantry, 20+float64(i))
		r.add(manyCreate, gantry, 45)
	}
	text := table(r.rows(plan{pods: 12}))
	if got, want := strings.Count(text, "\n"), len(lines())+1; got != want {
		t.Errorf("the table has %d lines, want %d:\n%s", got, want, text)
	}
	for _, want := range []string{"CreateContainer, 12 pods ÷ no pods", "22.5 (25.0)", "1.80", "2.00"} {
		if !strings.Contains(text, want) {
			t.Errorf("the table lacks %q:\n%s", want, text)
		}
	}
}
