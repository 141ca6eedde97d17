// Package index finds objects by id, by unambiguous id prefix, and lists them.
// Its lock is held for map operations only, never while anything is waited for.
package index

import (
	"cmp"
	"slices"
	"strings"
	"sync"

	"github.com/gantry-cri/gantry/internal/errkind"
)

// Index maps ids to objects. Make one with New. It is safe for concurrent use.
type Index[K ~string, V any] struct {
	what string

	mu  sync.RWMutex
	all map[K]V // guarded by mu
}

// New returns an empty index; what names the kind of object in errors ("container").
func New[K ~string, V any](what string) *Index[K, V] {
	return &Index[K, V]{what: what, all: make(map[K]V)}
}

// Put adds or replaces the object with this id.
func (x *Index[K, V]) Put(key K, v V) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.all[key] = v
}

// Delete removes an object; an absent one is no error.
func (x *Index[K, V]) Delete(key K) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.all, key)
}

// Exact returns the object with exactly this id.
func (x *Index[K, V]) Exact(key K) (V, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	v, ok := x.all[key]
	return v, ok
}

// Find returns the object whose id is or begins with s. The error is of kind
// errkind.NotFound when there is none, and errkind.Invalid when s is empty or
// more than one id begins with it.
func (x *Index[K, V]) Find(s string) (V, error) {
	var none V
	if s == "" {
		return none, errkind.Errorf(errkind.Invalid, "no %s id given", x.what)
	}
	x.mu.RLock()
	defer x.mu.RUnlock()
	if v, ok := x.all[K(s)]; ok {
		return v, nil
	}
	var found []K
	for key := range x.all {
		if strings.HasPrefix(string(key), s) {
			found = append(found, key)
		}
	}
	switch len(found) {
	case 0:
		return none, errkind.Errorf(errkind.NotFound, "%s %q not found", x.what, s)
	case 1:
		return x.all[found[0]], nil
	}
	slices.Sort(found)
	return none, errkind.Errorf(errkind.Invalid, "%s id %q is ambiguous: %d begin with it, among them %s and %s",
		x.what, s, len(found), found[0], found[1])
}

// Sorted returns every object for which keep returns true (all for a nil
// keep), ordered by less-than on what by returns, then by id.
func (x *Index[K, V]) Sorted(by func(V) int64, keep func(V) bool) []V {
	type entry struct {
		key K
		at  int64
		v   V
	}
	x.mu.RLock()
	entries := make([]entry, 0, len(x.all))
	for k, v := range x.all {
		entries = append(entries, entry{k, by(v), v})
	}
	x.mu.RUnlock()
	slices.SortFunc(entries, func(a, b entry) int {
		return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.key, b.key))
	})
	out := make([]V, 0, len(entries))
	for _, e := range entries {
		if keep == nil || keep(e.v) {
			out = append(out, e.v)
		}
	}
	return out
}

// Len is the number of objects.
func (x *Index[K, V]) Len() int {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return len(x.all)
}
