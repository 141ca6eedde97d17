package stats

import (
	"bytes"
	"strconv"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// pressure is one PSI file: https://docs.kernel.org/accounting/psi.html
type pressure struct{ some, full stall }

type stall struct {
	total                uint64 // microseconds
	avg10, avg60, avg300 float64
}

// parsePressure reads the lines "some avg10=0.00 avg60=0.00 avg300=0.00 total=0"
// and "full …"; nil where there is neither.
func parsePressure(text []byte) *pressure {
	var p pressure
	found := false
	for len(text) > 0 {
		var line []byte
		line, text = cutLine(text)
		kind, rest, _ := bytes.Cut(line, []byte{' '})
		switch string(kind) {
		case "some":
			p.some, found = parseStall(rest), true
		case "full":
			p.full, found = parseStall(rest), true
		}
	}
	if !found {
		return nil
	}
	return &p
}

func parseStall(fields []byte) stall {
	var s stall
	for len(fields) > 0 {
		var field []byte
		field, fields, _ = bytes.Cut(fields, []byte{' '})
		key, value, _ := bytes.Cut(field, []byte{'='})
		switch string(key) {
		case "total":
			s.total, _ = number(value)
		case "avg10":
			s.avg10 = decimal(value)
		case "avg60":
			s.avg60 = decimal(value)
		case "avg300":
			s.avg300 = decimal(value)
		}
	}
	return s
}

func decimal(text []byte) float64 {
	if string(text) == "0.00" {
		return 0
	}
	f, err := strconv.ParseFloat(string(text), 64)
	if err != nil {
		return 0
	}
	return f
}

func (p *pressure) cri() *runtimeapi.PsiStats {
	if p == nil {
		return nil
	}
	return &runtimeapi.PsiStats{Full: p.full.cri(), Some: p.some.cri()}
}

func (s stall) cri() *runtimeapi.PsiData {
	return &runtimeapi.PsiData{Total: s.total * 1000, Avg10: s.avg10, Avg60: s.avg60, Avg300: s.avg300}
}
