package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/gantry-cri/gantry/internal/node"
	"github.com/gantry-cri/gantry/test/testenv"
)

// A bench is one run: what all its measurements share.
type bench struct {
	plan     plan
	dir      string
	node     node.Facts
	plugins  string // directory of the CNI plugins
	registry *testenv.Registry
	servers  []*server
	floor    *floor
	results  results
	facts    []fact
	names    int      // of pods given so far
	notes    []string // for below the table
}

// run measures everything and prints the table.
func run(ctx context.Context, p plan, dir string) error {
	b := &bench{plan: p, dir: dir, results: results{}}
	defer b.stop()
	if err := b.prepare(ctx); err != nil {
		return err
	}
	b.facts = b.gatherFacts(ctx)
	fmt.Print(b.header())
	err := b.measure(ctx)
	if err != nil {
		err = errors.Join(err, b.explain())
	}
	rows := b.results.rows(p) // also those from before a failure: they took long
	fmt.Print(table(rows), b.legend())
	if p.jsonFile != "" {
		err = errors.Join(err, b.writeJSON(rows))
	}
	return err
}

// prepare starts the registry and makes the servers, which do not run yet, and
// the floor.
func (b *bench) prepare(ctx context.Context) error {
	var err error
	if b.node, err = node.Probe(); err != nil {
		return err
	}
	if b.plugins, err = pluginDir(); err != nil {
		return err
	}
	if b.registry, err = fillRegistry(ctx, b.dir); err != nil {
		return fmt.Errorf("prepare the registry: %w", err)
	}
	for _, name := range b.plan.servers {
		s, err := b.newServer(name, len(b.servers))
		if err != nil {
			return fmt.Errorf("prepare %s: %w", name, err)
		}
		b.servers = append(b.servers, s)
	}
	b.floor, err = b.newFloor(ctx)
	return err
}

// stop ends the servers and the registry; what pods are left end with the
// benchmark's namespaces.
func (b *bench) stop() {
	for _, s := range b.servers {
		s.close()
	}
	if b.registry != nil {
		b.registry.Stop()
	}
}

// explain returns, as an error, the end of each server's log.
func (b *bench) explain() error {
	var errs []error
	for _, s := range b.servers {
		if text := s.logTail(30); text != "" {
			errs = append(errs, fmt.Errorf("the end of %s's log:\n%s", s.name, text))
		}
	}
	return errors.Join(errs...)
}

// pluginDir is the directory that holds the CNI plugins.
func pluginDir() (string, error) {
	dirs := []string{"/usr/lib/cni", "/opt/cni/bin"}
	for _, dir := range dirs {
		if _, err := os.Stat(filepath.Join(dir, "bridge")); err == nil {
			return dir, nil
		}
	}
	return "", fmt.Errorf("there are no CNI plugins in %v (test/setup/install.sh installs them)", dirs)
}
