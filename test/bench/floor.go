package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gantry-cri/gantry/internal/cgroup"
)

// A floor runs the bare runtime on a bundle like those of the servers, and the
// bare CNI plugins: what a server's calls can't be faster than.
type floor struct {
	bench  *bench
	dir    string
	root   string // the runtime's state
	cgroup string
	count  atomic.Int64 // of containers and namespaces so far
	cni    *plugins
}

func (b *bench) newFloor(ctx context.Context) (*floor, error) {
	run := filepath.Join(runDir(b.dir), "floor")
	f := &floor{
		bench: b, dir: filepath.Join(b.dir, "floor"), root: filepath.Join(run, "runtime"),
		cgroup: cgroupOf(b.dir) + "/floor",
	}
	for _, dir := range []string{f.dir, f.root} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
	}
	for _, name := range etcFiles() {
		if err := os.WriteFile(filepath.Join(f.dir, name), nil, 0o644); err != nil {
			return nil, err
		}
	}
	err := errors.Join(
		f.unpackImage(ctx, filepath.Join(f.dir, "rootfs")),
		cgroup.Create(b.node, f.cgroup))
	if err != nil {
		return nil, fmt.Errorf("prepare the floor: %w", err)
	}
	f.cni, err = b.newPlugins(run)
	return f, err
}

// bareContainer is one container of the floor.
type bareContainer struct {
	floor  *floor
	id     string
	bundle string
}

// bundle writes the bundle of a new container that joins the network namespace.
func (f *floor) bundle(netns string) (*bareContainer, error) {
	c := &bareContainer{floor: f, id: fmt.Sprintf("bare%d", f.count.Add(1))}
	c.bundle = filepath.Join(runDir(f.bench.dir), "floor", "bundles", c.id)
	if err := os.MkdirAll(c.bundle, 0o755); err != nil {
		return nil, err
	}
	return c, f.writeSpec(filepath.Join(c.bundle, "config.json"), netns, f.cgroup+"/"+c.id)
}

// up creates and starts the container.
func (c *bareContainer) up(ctx context.Context) (create, start time.Duration, err error) {
	create, err = c.floor.run(ctx, "create", "--bundle", c.bundle, "--pid-file", filepath.Join(c.bundle, "pid"), c.id)
	if err != nil {
		return create, 0, err
	}
	start, err = c.floor.run(ctx, "start", c.id)
	return create, start, err
}

func (c *bareContainer) exec(ctx context.Context) (time.Duration, error) {
	return c.floor.run(ctx, "exec", c.id, "true")
}

// delete kills and deletes the container.
func (c *bareContainer) delete(ctx context.Context) error {
	_, err := c.floor.run(ctx, "delete", "--force", c.id)
	return errors.Join(err, os.RemoveAll(c.bundle))
}

// run times one command of the runtime.
func (f *floor) run(ctx context.Context, args ...string) (time.Duration, error) {
	// A container that is created keeps its creator's stderr, so a pipe would not end.
	stderr, err := os.CreateTemp(f.dir, "stderr-")
	if err != nil {
		return 0, err
	}
	defer os.Remove(stderr.Name())
	defer stderr.Close()
	cmd := exec.CommandContext(ctx, f.bench.plan.runtime, append([]string{"--root", f.root}, args...)...)
	cmd.Stderr = stderr
	begin := time.Now()
	err = cmd.Run()
	took := time.Since(begin)
	if err != nil {
		_, _ = stderr.Seek(0, io.SeekStart)
		said, _ := io.ReadAll(io.LimitReader(stderr, 4096))
		return took, fmt.Errorf("%s %s: %w: %s", f.bench.runtimeName(), strings.Join(args, " "), err, said)
	}
	return took, nil
}
