package config

import (
	"fmt"
	"path/filepath"
)

// wellKnownRuntimes are offered when no runtime is configured, and the first
// of them that there is becomes the default.
func wellKnownRuntimes() []string { return []string{"crun", "runc"} }

// ResolveRuntimes returns c with every runtime's Path and Root and with
// DefaultRuntime filled in. lookPath finds a binary by its name, as
// exec.LookPath does; it is the only thing asked about the node. The Path of a
// runtime that is not found stays empty: it may be installed later.
func (c Config) ResolveRuntimes(lookPath func(name string) (string, error)) (Config, error) {
	c.Runtimes = offered(c, lookPath)
	if name := c.DefaultRuntime; name != "" {
		if _, ok := c.Runtimes[name]; !ok {
			c.Runtimes = withRuntime(c.Runtimes, name, Runtime{})
		}
	}
	for _, name := range runtimeNames(c.Runtimes) {
		r := c.Runtimes[name]
		if r.Path == "" {
			if found, err := lookPath(name); err == nil {
				r.Path = found
			}
		}
		if r.Root == "" {
			r.Root = filepath.Join(c.RunRoot, name)
		}
		c.Runtimes = withRuntime(c.Runtimes, name, r)
	}
	return c.withDefaultRuntime()
}

// offered are the configured runtimes; if there are none, the
// well-known ones that PATH has, or all of them if it has none yet.
func offered(c Config, lookPath func(string) (string, error)) map[string]Runtime {
	if len(c.Runtimes) > 0 {
		return c.Runtimes
	}
	var all, found map[string]Runtime
	for _, name := range wellKnownRuntimes() {
		all = withRuntime(all, name, Runtime{})
		if _, err := lookPath(name); err == nil {
			found = withRuntime(found, name, Runtime{})
		}
	}
	if len(found) == 0 {
		return all
	}
	return found
}

func (c Config) withDefaultRuntime() (Config, error) {
	if c.DefaultRuntime != "" {
		return c, nil
	}
	for _, name := range wellKnownRuntimes() {
		if _, ok := c.Runtimes[name]; ok {
			c.DefaultRuntime = name
			return c, nil
		}
	}
	names := runtimeNames(c.Runtimes)
	if len(names) != 1 {
		return Config{}, fmt.Errorf("default_runtime: must say which of the runtimes %q is the default", names)
	}
	c.DefaultRuntime = names[0]
	return c, nil
}
