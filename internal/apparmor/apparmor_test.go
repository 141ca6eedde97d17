package apparmor

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/gantry-cri/gantry/internal/errkind"
)

// kernel is a directory with the kernel's list of profiles.
type kernel struct {
	t    *testing.T
	root string
}

func newKernel(t *testing.T) kernel {
	k := kernel{t, t.TempDir()}
	if err := os.MkdirAll(filepath.Join(k.root, "sys/kernel/security/apparmor"), 0o755); err != nil {
		t.Fatal(err)
	}
	k.has("/usr/bin/man (enforce)", "with space (complain)", "gantry-default-not (enforce)")
	return k
}

// has replaces the list.
func (k kernel) has(lines ...string) {
	text := strings.Join(append(lines, ""), "\n")
	if err := os.WriteFile(filepath.Join(k.root, "sys/kernel/security/apparmor/profiles"), []byte(text), 0o644); err != nil {
		k.t.Fatal(err)
	}
}

func (k kernel) options(load func(string) error) Options {
	return Options{Enabled: true, Default: Builtin, Root: k.root, Load: load, Log: slog.New(slog.DiscardHandler)}
}

func wantKind(t *testing.T, err error, says string) {
	t.Helper()
	if errkind.Of(err) != errkind.Precondition || !strings.Contains(err.Error(), says) {
		t.Errorf("got %v, want one of kind Precondition that says %q", err, says)
	}
}

// TestRequire: what the kernel has is let through, and nothing else.
func TestRequire(t *testing.T) {
	k := newKernel(t)
	p := New(Options{Default: Builtin, Root: k.root, Load: func(string) error { return errors.New("not asked for") }})
	for _, name := range []string{"", "unconfined", "/usr/bin/man", "with space"} {
		if err := p.Require(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"man", "/usr/bin/man (enforce)", "with", "gantry"} {
		wantKind(t, p.Require(name), "is not loaded on this node")
	}
	if err := os.RemoveAll(k.root); err != nil {
		t.Fatal(err)
	}
	wantKind(t, p.Require("/usr/bin/man"), "list of profiles")
}

// TestDefault: the built-in profile is loaded at the start, once for all who
// need it, and again when it has vanished.
func TestDefault(t *testing.T) {
	k := newKernel(t)
	var loads atomic.Int32
	begun, release := make(chan struct{}, 8), make(chan struct{})
	p := New(k.options(func(name string) error {
		loads.Add(1)
		begun <- struct{}{}
		<-release
		k.has(name + " (enforce)")
		return nil
	}))
	<-begun // nobody has asked yet
	results := make(chan error, 3)
	for range cap(results) {
		go func() { results <- p.Require(Builtin) }()
	}
	close(release)
	for range cap(results) {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	if n := loads.Load(); n != 1 {
		t.Errorf("loaded %d times", n)
	}
	k.has("/usr/bin/man (enforce)")
	if err := p.Require(Builtin); err != nil || loads.Load() != 2 {
		t.Errorf("after it vanished: %v, loaded %d times", err, loads.Load())
	}
	if err := p.Require(Builtin); err != nil || loads.Load() != 2 {
		t.Errorf("while it is there: %v, loaded %d times", err, loads.Load())
	}
}

// TestOtherDefault: another default is the administrator's to load.
func TestOtherDefault(t *testing.T) {
	k := newKernel(t)
	o := k.options(func(string) error { t.Error("loaded"); return nil })
	o.Default = "site"
	p := New(o)
	wantKind(t, p.Require("site"), "is not loaded")
	k.has("site (enforce)")
	if err := p.Require("site"); err != nil {
		t.Error(err)
	}
}

// TestNoParser: the error says what to install, and the problem is over once
// somebody has loaded the profile.
func TestNoParser(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	k := newKernel(t)
	p := New(k.options(nil))
	wantKind(t, p.Require(Builtin), "apparmor_parser, which loads it, is missing")
	if got := p.Problems(); len(got) != 1 || !strings.Contains(got[0], Builtin) || !strings.Contains(got[0], Parser) {
		t.Errorf("problems: %q", got)
	}
	k.has(Builtin + " (enforce)")
	if err := p.Require(Builtin); err != nil || len(p.Problems()) != 0 {
		t.Errorf("%v, %q", err, p.Problems())
	}
}

// TestParserFails: its own words are told.
func TestParserFails(t *testing.T) {
	k := newKernel(t)
	bin := t.TempDir()
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	if err := os.WriteFile(filepath.Join(bin, Parser), []byte("#!/bin/sh\necho \"$@\"; cat \"$2\"; exit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	p := New(k.options(nil))
	err := p.Require(Builtin)
	wantKind(t, err, "-Kr")
	wantKind(t, err, "profile "+Builtin)
	wantKind(t, err, "deny mount")
}
