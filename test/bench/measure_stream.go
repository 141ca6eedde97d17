package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/websocket"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	lineLength  = 100
	linesOnce   = 160_000 // 16 MB
	logRepeats  = 32      // 512 MB in all
	execWorkers = 8
)

// floodArgs writes lines of 100 bytes as fast as possible, once the file /go
// is there: with the file of lines made before, writing is all that is measured.
func floodArgs() []string {
	script := fmt.Sprintf("yes %s | head -n %d >/lines; touch /ready; until [ -e /go ]; do sleep 0.01; done; i=0; while [ $i -lt %d ]; do cat /lines; i=$((i+1)); done",
		strings.Repeat("x", lineLength-1), linesOnce, logRepeats)
	return []string{"sh", "-c", script}
}

// flood runs a pod whose container is ready to write.
func (b *bench) flood(ctx context.Context, s *server) (*pod, error) {
	p, err := s.newPod(b.podName())
	if err != nil {
		return nil, err
	}
	p.container.Command = floodArgs()
	p.container.Linux.Resources = nil
	// On a tmpfs: the daemon is measured, not the disk.
	p.sandbox.LogDirectory = filepath.Join(s.run, "logs", p.sandbox.Metadata.Name)
	if err := os.MkdirAll(filepath.Join(p.sandbox.LogDirectory, "main"), 0o755); err != nil {
		return nil, err
	}
	if _, err := p.up(ctx); err != nil {
		return nil, err
	}
	return p, p.sh(ctx, "until [ -e /ready ]; do sleep 0.01; done")
}

func (p *pod) sh(ctx context.Context, script string) error {
	resp, err := p.server.runtime.ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: p.ctr, Cmd: []string{"sh", "-c", script}, Timeout: 60})
	if err == nil && resp.ExitCode != 0 {
		err = fmt.Errorf("exit code %d: %s", resp.ExitCode, resp.Stderr)
	}
	return err
}

// logs measures how fast output gets into the log, and that all of it does.
func (b *bench) logs(ctx context.Context) error {
	for range b.plan.bursts {
		for _, s := range b.servers {
			p, err := b.flood(ctx, s)
			if err != nil {
				return err
			}
			file := filepath.Join(p.sandbox.LogDirectory, p.container.LogPath)
			begin := time.Now()
			if err := p.sh(ctx, "touch /go"); err != nil {
				return err
			}
			end, err := p.logEnd(ctx, file)
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			b.results.add(logRate, s.name, linesOnce*logRepeats*lineLength/(1<<20)/end.Sub(begin).Seconds())
			if err := errors.Join(checkLog(file), os.Remove(file)); err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			if _, err := p.down(ctx); err != nil {
				return err
			}
			b.forget(ctx, p)
		}
	}
	return nil
}

// logEnd waits until the container has ended and its log grows no more, and
// returns when it grew last.
func (p *pod) logEnd(ctx context.Context, file string) (time.Time, error) {
	var size int64
	for grew := time.Now(); ; {
		info, err := os.Stat(file)
		if err != nil {
			return grew, err
		}
		if info.Size() != size {
			size, grew = info.Size(), time.Now()
		} else if time.Since(grew) > time.Second {
			resp, err := p.server.runtime.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: p.ctr})
			if err != nil || resp.Status.State == runtimeapi.ContainerState_CONTAINER_EXITED {
				return grew, err
			}
		}
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return grew, err
		}
	}
}

// checkLog compares what is in a log with what was written, byte by byte.
func checkLog(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	want := []byte(" stdout F " + strings.Repeat("x", lineLength-1) + "\n")
	lines := 0
	for r := bufio.NewReaderSize(f, 1<<20); ; lines++ {
		line, err := r.ReadSlice('\n')
		if err == io.EOF {
			break
		}
		if err != nil || !bytes.HasSuffix(line, want) {
			return fmt.Errorf("line %d of the log is %q: %v", lines, line, err)
		}
	}
	if lines != linesOnce*logRepeats {
		return fmt.Errorf("the log has %d lines, want %d", lines, linesOnce*logRepeats)
	}
	return nil
}

// attached measures how fast an attached client gets output.
func (b *bench) attached(ctx context.Context) error {
	for _, s := range b.servers {
		p, err := b.flood(ctx, s)
		if err != nil {
			return err
		}
		resp, err := s.runtime.Attach(ctx, &runtimeapi.AttachRequest{ContainerId: p.ctr, Stdout: true})
		if err != nil {
			return fmt.Errorf("%s: Attach: %w", s.name, err)
		}
		ws, err := websocket.Dial(strings.Replace(resp.Url, "http", "ws", 1), "v4.channel.k8s.io", "http://localhost")
		if err != nil {
			return fmt.Errorf("%s: attach: %w", s.name, err)
		}
		begin := time.Now()
		if err := p.sh(ctx, "touch /go"); err != nil {
			return err
		}
		got := 0
		for m := []byte(nil); websocket.Message.Receive(ws, &m) == nil; {
			if len(m) > 0 && m[0] == 1 {
				got += len(m) - 1
			}
		}
		b.results.add(attachRate, s.name, float64(got)/(1<<20)/time.Since(begin).Seconds())
		b.note("%s: an attached client got %d of %d MB", s.name, got/1_000_000, linesOnce*logRepeats*lineLength/1_000_000)
		ws.Close() //nolint:errcheck // the server has closed it
		if _, err := p.down(ctx); err != nil {
			return err
		}
		b.forget(ctx, p)
	}
	return nil
}

// soak measures what many execs leave of memory with the daemon.
func (b *bench) soak(ctx context.Context) error {
	for _, s := range b.servers {
		p, err := s.newPod(b.podName())
		if err != nil {
			return err
		}
		p.container.Linux.Resources = nil
		if _, err := p.up(ctx); err != nil {
			return err
		}
		if err := p.execMany(ctx, 200); err != nil { // what is made once is made
			return err
		}
		before, err := b.settledMemory(ctx, s)
		if err != nil {
			return err
		}
		if err := p.execMany(ctx, b.plan.soak); err != nil {
			return err
		}
		after, err := b.settledMemory(ctx, s)
		if err != nil {
			return err
		}
		b.results.add(soakMemory, s.name, after-before)
		b.note("%s: %d execs took the daemon from %.1f to %.1f MiB", s.name, b.plan.soak, before, after)
		if _, err := p.down(ctx); err != nil {
			return err
		}
		b.forget(ctx, p)
	}
	return nil
}

func (b *bench) settledMemory(ctx context.Context, s *server) (float64, error) {
	if err := pause(ctx, b.plan.settle); err != nil {
		return 0, err
	}
	m, err := s.memory()
	return m.daemon, err
}

// execMany runs so many commands, some at a time.
func (p *pod) execMany(ctx context.Context, count int) error {
	var wg sync.WaitGroup
	var left atomic.Int64
	left.Store(int64(count))
	errs := make(chan error, execWorkers)
	for range execWorkers {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if _, err := p.exec(ctx); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	return <-errs // nil once it is closed
}
