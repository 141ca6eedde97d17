package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"unicode/utf8"
)

// table prints the rows, a median and (where there are enough samples) the 95th
// percentile for each.
func table(rows []row) string {
	cells := [][]string{{"what", "", "floor", "containerd", "gantry", "÷ floor", "÷ containerd", "budget", "met"}}
	for _, r := range rows {
		cells = append(cells, []string{
			r.What, r.Unit, r.cell(bare), r.cell(containerd), r.cell(gantry),
			ratioCell(r.Floor), ratioCell(r.Peer), r.Budget, r.Met,
		})
	}
	widths := make([]int, len(cells[0]))
	for _, line := range cells {
		for i, cell := range line {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var b strings.Builder
	for _, line := range cells {
		text := ""
		for i, cell := range line {
			padding := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if i >= 2 && i <= 6 { // figures
				text += padding + cell + "  "
			} else {
				text += cell + padding + "  "
			}
		}
		b.WriteString(strings.TrimRight(text, " ") + "\n")
	}
	return b.String()
}

func (r row) cell(w who) string {
	value, ok := r.Value[w]
	if !ok {
		return "–"
	}
	text := number(value)
	if p95, ok := r.P95[w]; ok {
		text += " (" + number(p95) + ")"
	}
	return text
}

func ratioCell(ratio float64) string {
	if ratio == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f", ratio)
}

// number writes three digits that count.
func number(v float64) string {
	switch {
	case v >= 100 || v <= -100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10 || v <= -10:
		return fmt.Sprintf("%.1f", v)
	case v >= 1 || v <= -1:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.3f", v)
}

// legend says what the columns and rows mean.
func (b *bench) legend() string {
	text := `
A figure is the median, in brackets the 95th percentile. Two warm-up pods of each, and one warm-up command, are not counted; nothing else is left out.
floor: the bare runtime and the bare plugins. Pod up: a network namespace, then CNI ADD beside create + start of a container in pause's place, then
create + start of the container. Pod down: CNI DEL beside delete --force of both. With N pods: beside N pods of Gantry.
Memory: proportional set size of all processes; per pod: (with N pods - fresh daemon without pods) / N.
`
	for _, note := range b.notes {
		text += "note: " + note + "\n"
	}
	return text
}

// writeJSON writes everything to the file of -json.
func (b *bench) writeJSON(rows []row) error {
	data, err := json.MarshalIndent(map[string]any{"machine": b.facts, "rows": rows, "notes": b.notes, "all": b.results}, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(b.plan.jsonFile, append(data, '\n'), 0o644)
}
