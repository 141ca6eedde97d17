package id

import (
	"strings"
	"testing"
)

func TestValid(t *testing.T) {
	good := string(NewPod())
	if !Valid(good) || !Valid(string(NewContainer())) {
		t.Errorf("a fresh id is valid: %q", good)
	}
	for _, bad := range []string{"", "abc", good + "0", strings.ToUpper("a" + good[1:]), "../" + good[3:], good[:63] + "/", good[:63] + "\n"} {
		if Valid(bad) {
			t.Errorf("%q passes as an id", bad)
		}
	}
	if a, b := NewPod(), NewPod(); a == b {
		t.Error("two ids are the same")
	}
}
