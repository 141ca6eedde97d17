package server

import (
	"bytes"
	"strings"
	"testing"
)

func TestFitOutputs(t *testing.T) {
	const max = 1000
	for _, tt := range []struct{ out, err, wantOut, wantErr int }{
		{0, 0, 0, 0}, {400, 600, 400, 600}, {5000, 0, 1000, 0}, {5000, 300, 700, 300}, {300, 5000, 300, 700},
		{5000, 5000, 500, 500}, {501, 501, 500, 500}, {1001, 0, 1000, 0},
	} {
		out, err := fitOutputs(bytes.Repeat([]byte("o"), tt.out), bytes.Repeat([]byte("e"), tt.err), max)
		if len(out) != tt.wantOut || len(err) != tt.wantErr {
			t.Errorf("%d and %d bytes became %d and %d, want %d and %d", tt.out, tt.err, len(out), len(err), tt.wantOut, tt.wantErr)
		}
		for _, o := range []struct {
			got  []byte
			full int
		}{{out, tt.out}, {err, tt.err}} {
			if cut := strings.Contains(string(o.got), "output cut"); cut != (len(o.got) < o.full) {
				t.Errorf("%d of %d bytes: marked as cut: %v", len(o.got), o.full, cut)
			}
		}
	}
}
