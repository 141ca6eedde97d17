package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	godigest "github.com/opencontainers/go-digest"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/test/images"
)

// pullRepeats is how often each image is pulled by each server.
const pullRepeats = 3

// pulls measures pulls from a registry on this machine: what each takes, and
// how much memory the daemon needs for the largest.
func (b *bench) pulls(ctx context.Context) error {
	dir := filepath.Join(b.dir, "pull-images")
	blobs, err := pullLayout(dir)
	if err != nil {
		return fmt.Errorf("make the images: %w", err)
	}
	if err := images.Push(ctx, dir, b.registry.Address); err != nil {
		return err
	}
	for range pullRepeats {
		if err := b.barePull(ctx, blobs); err != nil {
			return err
		}
		for _, s := range b.servers {
			if err := b.pullAll(ctx, s); err != nil {
				return err
			}
		}
	}
	return os.RemoveAll(dir)
}

// pullAll pulls each image once, and removes it before the next.
func (b *bench) pullAll(ctx context.Context, s *server) error {
	for _, one := range []struct{ what, image string }{
		{pullGzip, bigImage}, {pullAgain, againImage}, {pullSame, againImage}, {pullZstd, zstdImage}, {pullLayers, layersImage},
	} {
		if one.image == zstdImage { // its layers unpack to the same: they must be gone
			if err := s.removeImages(ctx, bigImage, againImage); err != nil {
				return err
			}
		}
		base, err := s.startPeak()
		if err != nil {
			return err
		}
		took, err := s.pull(ctx, one.image)
		if err != nil {
			return err
		}
		b.results.addTime(one.what, s.name, took)
		if one.image == bigImage {
			peak, err := s.status("VmHWM")
			if err != nil {
				return err
			}
			b.results.add(pullMemory, s.name, peak-base)
		}
	}
	if err := b.pullUpdates(ctx, s); err != nil {
		return err
	}
	return s.removeImages(ctx, zstdImage, layersImage, chunkedImage, updateImage)
}

// pullUpdates pulls an image and then its next version, and tells what of that
// went over the loopback interface, which is this benchmark's own.
func (b *bench) pullUpdates(ctx context.Context, s *server) error {
	if _, err := s.pull(ctx, chunkedImage); err != nil {
		return err
	}
	before, err := loopbackBytes()
	if err != nil {
		return err
	}
	took, err := s.pull(ctx, updateImage)
	if err != nil {
		return err
	}
	after, err := loopbackBytes()
	b.results.addTime(pullUpdate, s.name, took)
	b.results.add(updateBytes, s.name, float64(after-before)/1e6)
	return err
}

func loopbackBytes() (int64, error) {
	text, err := os.ReadFile("/proc/thread-self/net/dev") // sysfs shows where it was mounted
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if counters, ok := strings.CutPrefix(strings.TrimSpace(line), "lo:"); ok {
			return strconv.ParseInt(strings.Fields(counters)[0], 10, 64)
		}
	}
	return 0, errors.New("no loopback interface")
}

// removeImages removes images, and waits until what is done in the background
// is, as far as can be told.
func (s *server) removeImages(ctx context.Context, names ...string) error {
	for _, name := range names {
		if _, err := s.images.RemoveImage(ctx, &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: name}}); err != nil {
			return fmt.Errorf("%s: RemoveImage %s: %w", s.name, name, err)
		}
	}
	time.Sleep(2 * time.Second)
	return nil
}

// startPeak makes the kernel watch the daemon's memory for a new peak, and
// returns what it has now, in MiB.
func (s *server) startPeak() (float64, error) {
	const resetPeak = "5" // proc_pid_clear_refs(5)
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", s.cmd.Process.Pid), []byte(resetPeak), 0); err != nil {
		return 0, err
	}
	return s.status("VmRSS")
}

// status is a size of the daemon that the kernel tells in KiB, in MiB.
func (s *server) status(key string) (float64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, key+":"); ok {
			kib, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			return kib / 1024, err
		}
	}
	return 0, fmt.Errorf("no %s in the status of %s", key, s.name)
}

// barePull is what a pull can't be faster than with the usual tools: each layer
// fetched, unpacked, and hashed before and after decompression, both at a time.
func (b *bench) barePull(ctx context.Context, blobs []godigest.Digest) error {
	to := filepath.Join(b.dir, "floor", "pull")
	script := ""
	for i, blob := range blobs {
		script += fmt.Sprintf("mkdir -p %[1]s/%[2]d; curl -sf http://%[3]s/v2/bench/big/blobs/%[4]s | tee >(sha256sum >%[1]s/%[2]d.a) | zcat | tee >(sha256sum >%[1]s/%[2]d.b) | tar -x -C %[1]s/%[2]d &\n",
			to, i, b.registry.Address, blob)
	}
	begin := time.Now()
	out, err := exec.CommandContext(ctx, "bash", "-c", "set -o pipefail\n"+script+"wait").CombinedOutput()
	if err != nil {
		return fmt.Errorf("curl, zcat and tar: %w: %s", err, out)
	}
	b.results.addTime(pullGzip, bare, time.Since(begin))
	if err := checkBare(to, blobs); err != nil {
		return err
	}
	return os.RemoveAll(to)
}

// checkBare makes sure that the tools did what is measured.
func checkBare(to string, blobs []godigest.Digest) error {
	for i, blob := range blobs {
		sum, err := os.ReadFile(filepath.Join(to, fmt.Sprintf("%d.a", i)))
		if err != nil {
			return err
		}
		files, err := filepath.Glob(filepath.Join(to, strconv.Itoa(i), "usr/lib/*/*/*"))
		if err != nil {
			return err
		}
		if !strings.HasPrefix(string(sum), blob.Encoded()) || len(files) != bigFiles {
			return fmt.Errorf("the bare pull got %s with %d files of %s", sum, len(files), blob)
		}
	}
	return nil
}
