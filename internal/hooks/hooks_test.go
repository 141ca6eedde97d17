package hooks

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	rspec "github.com/opencontainers/runtime-spec/specs-go"
)

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestConditions(t *testing.T) {
	spec := func() *rspec.Spec {
		return &rspec.Spec{
			Process:     &rspec.Process{Args: []string{"/bin/sh", "-c"}},
			Annotations: map[string]string{"example.com/gpu": "yes", "other": "no"},
		}
	}
	for when, want := range map[string]bool{
		`{"always": true}`:                                  true,
		`{"always": false}`:                                 false,
		`{"always": true, "hasBindMounts": false}`:          false,
		`{"hasBindMounts": true}`:                           true,
		`{"annotations": {"^example\\.com/": "^yes$"}}`:     true,
		`{"annotations": {"^example\\.com/": "^no$"}}`:      false,
		`{"annotations": {"gpu": "yes", "none": ".*"}}`:     false,
		`{"commands": ["^/bin/true$", "^/bin/sh$"]}`:        true,
		`{"commands": ["-c"]}`:                              false,
		`{"commands": ["sh"], "annotations": {"^x": ".*"}}`: false,
	} {
		dir := t.TempDir()
		write(t, dir, "a.json", `{"version": "1.0.0", "hook": {"path": "/bin/sh"}, "stages": ["poststop"], "when": `+when+`}`)
		s, d := spec(), New([]string{dir})
		d.Apply(s, true)
		if got := s.Hooks != nil && len(s.Hooks.Poststop) == 1; got != want || len(d.Problems()) > 0 {
			t.Errorf("%s: applied %v, want %v; problems %q", when, got, want, d.Problems())
		}
	}
}

func TestSet(t *testing.T) {
	old, next := t.TempDir(), t.TempDir()
	write(t, old, "a.json", "{")
	write(t, next, "b.json", `{"version": "1.0.0", "hook": {"path": "/bin/sh"}, "stages": ["poststop"], "when": {"always": true}}`)
	d := New([]string{old})
	s := &rspec.Spec{}
	if d.Apply(s, false); s.Hooks != nil || len(d.Problems()) != 1 {
		t.Fatalf("before: %+v, problems %q", s.Hooks, d.Problems())
	}
	d.Set([]string{next})
	if p := d.Problems(); len(p) > 0 {
		t.Errorf("problems of directories that are not looked at: %q", p)
	}
	if d.Apply(s, false); s.Hooks == nil || len(s.Hooks.Poststop) != 1 {
		t.Errorf("after: %+v, problems %q", s.Hooks, d.Problems())
	}
}

func TestOrderAndPrecedence(t *testing.T) {
	low, high := t.TempDir(), t.TempDir()
	hook := func(arg string) string {
		return `{"version": "1.0.0", "hook": {"path": "/bin/sh", "args": ["` + arg + `"]}, "stages": ["prestart", "poststop"], "when": {"always": true}}`
	}
	write(t, low, "B.json", hook("b of low"))
	write(t, low, "a.json", hook("a of low"))
	write(t, low, "ignored.txt", "{")
	write(t, high, "a.json", hook("a of high"))
	s := &rspec.Spec{}
	New([]string{low, high, "/nowhere"}).Apply(s, false)
	//lint:ignore SA1019 files still name it
	for _, list := range [][]rspec.Hook{s.Hooks.Prestart, s.Hooks.Poststop} {
		if len(list) != 2 || list[0].Args[0] != "a of high" || list[1].Args[0] != "b of low" {
			t.Errorf("got %v", list)
		}
	}
}

func TestFaultsAreSkippedAndTold(t *testing.T) {
	for text, want := range map[string]string{
		`{`:                    "unexpected end",
		`{"version": "0.1.0"}`: `version "0.1.0"`,
		`{"version": "1.0.0", "hook": {"path": "sh"}}`:                                                                      "not absolute",
		`{"version": "1.0.0", "hook": {"path": "/bin/sh"}}`:                                                                 "no stages",
		`{"version": "1.0.0", "hook": {"path": "/nowhere/x"}, "stages": ["poststop"], "when": {"always": true}}`:            "no such file",
		`{"version": "1.0.0", "hook": {"path": "/bin/sh"}, "stages": ["poststopp"], "when": {"always": true}}`:              "unknown stage",
		`{"version": "1.0.0", "hook": {"path": "/bin/sh"}, "stages": ["poststop"]}`:                                         "no condition",
		`{"version": "1.0.0", "hook": {"path": "/bin/sh", "timeout": 0}, "stages": ["poststop"], "when": {"always": true}}`: "timeout",
		`{"version": "1.0.0", "hook": {"path": "/bin/sh"}, "stages": ["poststop"], "when": {"commands": ["("]}}`:            "commands",
		`{"version": "1.0.0", "hook": {"path": "/bin/sh"}, "stages": ["poststop"], "when": {"annotations": {"a": "("}}}`:    "annotations",
	} {
		dir := t.TempDir()
		write(t, dir, "broken.json", text)
		write(t, dir, "good.json", `{"version": "1.0.0", "hook": {"path": "/bin/sh"}, "stages": ["poststop"], "when": {"always": true}}`)
		s, d := &rspec.Spec{}, New([]string{dir})
		d.Apply(s, false)
		if s.Hooks == nil || len(s.Hooks.Poststop) != 1 {
			t.Errorf("%s: the good hook is not applied alone: %v", text, s.Hooks)
		}
		if p := d.Problems(); len(p) != 1 || !strings.Contains(p[0], want) || !strings.Contains(p[0], "broken.json") {
			t.Errorf("%s: problems %q, want %q", text, p, want)
		}
	}
}
