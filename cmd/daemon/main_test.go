package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestConfigCommand: what gantryd config prints, and what it refuses.
func TestConfigCommand(t *testing.T) {
	file := filepath.Join(t.TempDir(), "gantry.toml")
	if err := os.WriteFile(file, []byte("log_level = \"debug\"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) (string, error) {
		var out strings.Builder
		cmd := command()
		cmd.SetOut(&out)
		cmd.SetArgs(append([]string{"config", "--config", file}, args...))
		err := cmd.Execute()
		return out.String(), err
	}
	if out, err := run("--diff", "--pids-limit=3"); err != nil || out != "pids_limit = 3 # flag --pids-limit\nlog_level = \"debug\" # "+file+":1\n" {
		t.Errorf("--diff: %q, %v", out, err)
	}
	if out, err := run("--diff", "--log-level=info"); err != nil || out != "# Nothing differs from the defaults.\n" {
		t.Errorf("--diff without a difference: %q, %v", out, err)
	}
	if out, err := run(); err != nil || !strings.Contains(out, "\nlog_level = \"debug\" # "+file+":1\n") || !strings.Contains(out, " # default\n") {
		t.Errorf("without flags: %q, %v", out, err)
	}
	if out, err := run("--diff", "--default"); err == nil {
		t.Errorf("both flags: %q", out)
	}
}
