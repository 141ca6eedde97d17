package cgroup

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestFindAndRemoveEmpty: cgroups are found by their names wherever they are;
// of a parent's children those go that are empty and have the right name.
func TestFindAndRemoveEmpty(t *testing.T) {
	f := probe(t)
	parent := scratch(t, f)
	for _, child := range []string{"x-empty/below", "x-used/below", "another"} {
		if err := Create(f, filepath.Join(parent, child)); err != nil {
			t.Fatal(err)
		}
	}
	start(t, f, filepath.Join(parent, "x-used/below"), "echo; sleep 1000")
	named := func(name string) bool { return strings.HasPrefix(name, "x-") }

	found, err := Find(f, func(name string) bool { return named(name) || name == "below" })
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"x-empty", "x-used"} {
		if !slices.Contains(found, filepath.Join(parent, name)) {
			t.Errorf("%s is not in %v", name, found)
		}
		if slices.Contains(found, filepath.Join(parent, name, "below")) {
			t.Errorf("what is below %s is in %v", name, found)
		}
	}
	if err := RemoveEmpty(context.Background(), f, parent, named); err != nil {
		t.Fatal(err)
	}
	there := func(name string) bool {
		return slices.ContainsFunc(Paths(f, filepath.Join(parent, name)), exists)
	}
	if there("x-empty") || !there("x-used") || !there("another") {
		t.Errorf("x-empty: %v, x-used: %v, another: %v", there("x-empty"), there("x-used"), there("another"))
	}
	if err := KillAll(context.Background(), f, parent); err != nil {
		t.Fatal(err)
	}
	if err := RemoveEmpty(context.Background(), f, parent, func(string) bool { return true }); err != nil {
		t.Fatal(err)
	}
	if there("") {
		t.Error("the parent is there still, and nothing in it")
	}
	if err := RemoveEmpty(context.Background(), f, parent, named); err != nil {
		t.Errorf("again: %v", err)
	}
	if err := RemoveEmpty(context.Background(), f, "/", named); err != nil {
		t.Errorf("of the root: %v", err)
	}
}
