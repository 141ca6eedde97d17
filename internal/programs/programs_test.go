package programs

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestInstallIsIdempotentAndRepairs(t *testing.T) {
	dir := t.TempDir()
	first, err := Install(dir)
	if err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(first.Monitor)
	if err != nil {
		t.Fatal(err)
	}
	second, err := Install(dir)
	if err != nil || second != first {
		t.Fatalf("got %+v, %v, want %+v", second, err, first)
	}
	after, err := os.Stat(first.Monitor)
	if err != nil || !os.SameFile(before, after) {
		t.Errorf("the monitor was written again: %v", err)
	}
	program := filepath.Join(first.PauseRootFS, PauseArg)
	if err := os.WriteFile(program, []byte("damaged"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Install(dir); err != nil {
		t.Fatal(err)
	}
	if body, err := os.ReadFile(program); err != nil || !bytes.Equal(body, pause) {
		t.Errorf("pause is not repaired: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(first.PauseRootFS, "*.tmp-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestVerify(t *testing.T) {
	dir := t.TempDir()
	if err := Verify(dir); err == nil || !strings.Contains(err.Error(), "gantry-monitor-") {
		t.Errorf("nothing installed: %v", err)
	}
	paths, err := Install(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := Verify(dir); err != nil {
		t.Error(err)
	}
	if err := os.Chmod(paths.StandIn, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Verify(dir); err == nil || !strings.Contains(err.Error(), paths.StandIn) {
		t.Errorf("one damaged: %v", err)
	}
}
