package monitor

import (
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// BenchmarkCreate is RUNTIME create by the monitor, overlay mount included.
func BenchmarkCreate(b *testing.B) {
	benchmarkCreate(b, func(p *pod, bundle *bundle) error {
		_, err := p.client.Create(b.Context(), bundle.req)
		return err
	})
}

// BenchmarkBareCreate is the runtime alone, on a directory: the floor.
func BenchmarkBareCreate(b *testing.B) {
	benchmarkCreate(b, func(p *pod, bundle *bundle) error {
		bundle.spec["root"] = map[string]any{"path": shared.layer}
		bundle.write(b)
		return exec.Command(bundle.req.Args[0], bundle.req.Args[1:]...).Run()
	})
}

func benchmarkCreate(b *testing.B, create func(*pod, *bundle) error) {
	p := newPod(b, "crun")
	for b.Loop() {
		b.StopTimer()
		bundle := p.bundle("/bin/sh")
		bundle.write(b)
		b.StartTimer()
		if err := create(p, bundle); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		ctr := string(bundle.req.ID)
		if err := exec.Command(p.runtime, "--root", p.root, "delete", "--force", ctr).Run(); err != nil {
			b.Error(err)
		}
		unix.Rmdir(filepath.Join("/sys/fs/cgroup", p.cgroup, ctr))
		b.StartTimer()
	}
}

// BenchmarkLaunch starts and ends a monitor.
func BenchmarkLaunch(b *testing.B) {
	dir := b.TempDir()
	for b.Loop() {
		c, err := Launch(b.Context(), LaunchOptions{Program: shared.monitor, Dir: dir}, Handler{})
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := c.Shutdown(b.Context()); err != nil {
			b.Fatal(err)
		}
		<-c.Done()
		for { // until its lock on the directory is gone
			if _, err := exec.Command("flock", "--nonblock", dir, "true").Output(); err == nil {
				break
			}
		}
		b.StartTimer()
	}
}

// BenchmarkCreateWithoutMounts shows what the overlay costs.
func BenchmarkCreateWithoutMounts(b *testing.B) {
	benchmarkCreate(b, func(p *pod, bundle *bundle) error {
		bundle.spec["root"] = map[string]any{"path": shared.layer}
		bundle.write(b)
		bundle.req.Mounts = nil
		_, err := p.client.Create(b.Context(), bundle.req)
		return err
	})
}
