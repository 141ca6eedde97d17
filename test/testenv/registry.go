package testenv

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gantry-cri/gantry/test/images"
)

// A Registry is a docker-registry on a free port of 127.0.0.1.
type Registry struct {
	Address string // host:port

	dir string
	cmd *exec.Cmd
	log bytes.Buffer
}

// StartRegistry starts an empty registry and returns when it answers. Its end is
// Stop; it also ends with the process that started it.
func StartRegistry() (*Registry, error) {
	program, err := exec.LookPath("docker-registry")
	if err != nil {
		return nil, fmt.Errorf("docker-registry is not installed (test/setup/install.sh does it): %w", err)
	}
	dir, err := newDir("registry-")
	if err != nil {
		return nil, err
	}
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	config := fmt.Sprintf("version: 0.1\nlog: {level: warn}\nstorage:\n  filesystem: {rootdirectory: %s}\n  delete: {enabled: true}\nhttp: {addr: %q}\n", filepath.Join(dir, "data"), address)
	file := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		return nil, err
	}
	r := &Registry{Address: address, dir: dir, cmd: exec.Command(program, "serve", file)}
	r.cmd.Stdout, r.cmd.Stderr = &r.log, &r.log
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := r.cmd.Start(); err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	if err := r.wait(); err != nil {
		r.Stop()
		return nil, fmt.Errorf("%w; it said: %s", err, r.log.String())
	}
	return r, nil
}

// Stop ends the registry and removes what it holds.
func (r *Registry) Stop() {
	_ = r.cmd.Process.Kill()
	_ = r.cmd.Wait()
	_ = os.RemoveAll(r.dir)
}

// Fill builds the image sets, unless they are cached, and pushes them.
func (r *Registry) Fill(ctx context.Context, sets ...images.Set) error {
	root, err := Root()
	if err != nil {
		return err
	}
	for _, set := range sets {
		dir, err := images.Build(ctx, filepath.Join(root, ".cache", "images"), set)
		if err != nil {
			return err
		}
		if err := images.Push(ctx, dir, r.Address); err != nil {
			return err
		}
	}
	return nil
}

func (r *Registry) wait() error {
	deadline := time.Now().Add(10 * time.Second)
	for {
		resp, err := http.Get("http://" + r.Address + "/v2/")
		if err == nil {
			resp.Body.Close()
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("docker-registry does not answer on %s: %w", r.Address, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// Images is one registry for all tests of a package, started at its first use.
// The zero value is ready; Stop it in TestMain.
type Images struct {
	Sets []images.Set

	mu       sync.Mutex // guards what follows
	registry *Registry
	err      error
}

// Registry returns the filled registry.
func (i *Images) Registry(t testing.TB) *Registry {
	t.Helper()
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.registry == nil && i.err == nil {
		i.registry, i.err = StartRegistry()
		if i.err == nil {
			i.err = i.registry.Fill(context.Background(), i.Sets...)
		}
	}
	if i.err != nil {
		t.Fatalf("start a registry with the tests' images: %v", i.err)
	}
	return i.registry
}

// Stop ends the registry, if one was started.
func (i *Images) Stop() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.registry != nil {
		i.registry.Stop()
		i.registry = nil
	}
}
