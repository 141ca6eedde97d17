package critest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gantry-cri/gantry/test/testenv"
)

// Output opens a file below build/ for the full output of a suite, for who looks
// for the cause of a failure, and wants to see how far it is.
func Output(t *testing.T) *os.File {
	t.Helper()
	root, err := testenv.Root()
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(root, "build", strings.ReplaceAll(t.Name(), "/", "-")+".log")
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	file, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	t.Logf("the suite's output is in %s", name)
	return file
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
