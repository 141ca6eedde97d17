package critest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gantry-cri/gantry/test/testenv"
)

// KeepOutput leaves a suite's full output below build/, for who looks for the
// cause of a failure.
func KeepOutput(t *testing.T, out []byte) {
	root, err := testenv.Root()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(root, "build", strings.ReplaceAll(t.Name(), "/", "-")+".log")
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, out, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Logf("the suite's output is in %s", file)
}

// Judge fails the test for each spec that failed, and for each that ran though
// the skip list names it.
func Judge(t *testing.T, skips []Skip, specs []Spec) {
	var passed, failed, skipped int
	for _, spec := range specs {
		if skip, ok := skippedBy(skips, spec); ok && spec.State != "skipped" {
			t.Errorf("%s ran though the skip list's %q matches it", spec.Name, skip.Pattern)
		}
		switch {
		case spec.Failed():
			failed++
			t.Errorf("%s: %s: %s", spec.State, spec.Name, spec.Message)
		case spec.State == "passed":
			passed++
		default:
			skipped++
			if spec.Message != "" {
				t.Logf("skipped itself: %s: %s", spec.Name, spec.Message)
			}
		}
	}
	t.Logf("%d passed, %d failed, %d skipped", passed, failed, skipped)
	if passed == 0 {
		t.Error("no spec passed")
	}
}

func skippedBy(skips []Skip, spec Spec) (Skip, bool) {
	for _, skip := range skips {
		if skip.Pattern.MatchString(spec.Name) {
			return skip, true
		}
	}
	return Skip{}, false
}
