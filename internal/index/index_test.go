package index

import (
	"strings"
	"testing"

	"github.com/gantry-cri/gantry/internal/errkind"
)

func TestFind(t *testing.T) {
	x := New[string, int]("thing")
	x.Put("aab", 1)
	x.Put("aac", 2)
	x.Put("b", 3)
	x.Put("bb", 4)
	for _, tc := range []struct {
		ask  string
		want int
		kind errkind.Kind
	}{
		{"aab", 1, errkind.Other},
		{"aac", 2, errkind.Other},
		{"b", 3, errkind.Other}, // an exact id wins over the prefix of another
		{"bb", 4, errkind.Other},
		{"aa", 0, errkind.Invalid},
		{"", 0, errkind.Invalid},
		{"c", 0, errkind.NotFound},
		{"aabb", 0, errkind.NotFound},
	} {
		got, err := x.Find(tc.ask)
		if got != tc.want || errkind.Of(err) != tc.kind || (err == nil) != (tc.want != 0) {
			t.Errorf("Find(%q) = %d, %v; want %d and kind %d", tc.ask, got, err, tc.want, tc.kind)
		}
	}
	if _, err := x.Find("aa"); !strings.Contains(err.Error(), "aab and aac") {
		t.Errorf("an ambiguous id's error names the candidates; got %v", err)
	}
}

func TestSorted(t *testing.T) {
	x := New[string, int64]("thing")
	x.Put("c", 1)
	x.Put("a", 2)
	x.Put("b", 2)
	x.Put("d", 0)
	x.Delete("d")
	got := x.Sorted(func(v int64) int64 { return v }, func(v int64) bool { return v > 0 })
	if len(got) != 3 || got[0] != 1 || x.Len() != 3 {
		t.Errorf("Sorted = %v", got)
	}
}
