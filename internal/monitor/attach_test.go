package monitor

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-cri/gantry/internal/errkind"
)

var allStreams = AttachOptions{Stdin: true, Stdout: true, Stderr: true}

func (p *pod) attach(b *bundle, o AttachOptions) *Stream {
	p.t.Helper()
	s, err := p.client.Attach(p.t.Context(), b.req.ID, o)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { s.Close() })
	return s
}

// copied is what an attached client got.
type copied struct {
	Copied
	stdout, stderr bytes.Buffer
	err            error
}

// copyAll collects everything in the background.
func copyAll(s *Stream, stdin io.Reader) <-chan *copied {
	done := make(chan *copied, 1)
	go func() {
		var c copied
		c.Copied, c.err = s.Copy(stdin, &c.stdout, &c.stderr)
		done <- &c
	}()
	return done
}

func TestAttachBeforeTheStart(t *testing.T) {
	eachRuntime(t, func(t *testing.T, p *pod) {
		b := p.bundle("/bin/sh", "-c", "echo out; echo err >&2; exit 4")
		p.create(b)
		first, second := copyAll(p.attach(b, allStreams), nil), copyAll(p.attach(b, AttachOptions{Stdout: true}), nil)
		p.start(b)
		for i, want := range []string{"err\n", ""} {
			c := <-[]<-chan *copied{first, second}[i]
			if c.err != nil || c.stdout.String() != "out\n" || c.stderr.String() != want || !c.Exited || c.Exit.Code != 4 {
				t.Errorf("client %d: %+v, %q, %q", i, c.Copied, c.stdout.String(), c.stderr.String())
			}
		}
		p.wait(b)
		if _, err := p.client.Attach(t.Context(), b.req.ID, allStreams); !errors.Is(err, ErrExited) {
			t.Errorf("attach after the exit: %v", err)
		}
		if got := output(readLog(t, b.req.LogPath), "stdout"); got != "out\n" {
			t.Errorf("log %q", got)
		}
	})
}

func TestStdinOnce(t *testing.T) {
	eachRuntime(t, func(t *testing.T, p *pod) {
		// More than pipe and socket hold, so that back pressure is at work.
		data := make([]byte, 4<<20)
		rand.Read(data)
		b := p.bundle("/bin/sh", "-c", "/bin/busybox sleep 0.2; /bin/busybox sha256sum")
		b.req.Stdin, b.req.StdinOnce = true, true
		p.create(b)
		done := copyAll(p.attach(b, allStreams), bytes.NewReader(data))
		p.start(b)
		c := <-done
		if want := fmt.Sprintf("%x  -\n", sha256.Sum256(data)); c.err != nil || c.stdout.String() != want {
			t.Errorf("%v, %q", c.err, c.stdout.String())
		}
		p.wait(b)
	})
}

// A client that hangs up right after its last byte has still said it all.
func TestStdinIsDeliveredAfterTheClientIsGone(t *testing.T) {
	p := newPod(t, "crun")
	data := make([]byte, 120<<10) // fits into pipe and socket, so that Write needs no reader
	rand.Read(data)
	b := p.bundle("/bin/sh", "-c", "/bin/busybox sleep 0.3; /bin/busybox sha256sum")
	b.req.Stdin, b.req.StdinOnce = true, true
	p.create(b)
	s := p.attach(b, AttachOptions{Stdin: true})
	if _, err := s.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	p.start(b)
	p.wait(b)
	if got, want := output(readLog(t, b.req.LogPath), "stdout"), fmt.Sprintf("%x  -\n", sha256.Sum256(data)); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestDetachLeavesStdinOpen(t *testing.T) {
	p := newPod(t, "crun")
	b := p.bundle("/bin/busybox", "cat")
	b.req.Stdin = true
	p.create(b)
	p.start(b)
	for _, words := range []string{"one\n", "two\n"} {
		s := p.attach(b, allStreams)
		if _, err := io.WriteString(s, words); err != nil {
			t.Fatal(err)
		}
		if e, err := s.Receive(); err != nil || string(e.Data) != words {
			t.Errorf("%+v, %v", e, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if _, err := s.Receive(); err != io.EOF {
			t.Errorf("receive after close: %v", err)
		}
	}
	if err := p.client.CloseStdin(t.Context(), b.req.ID); err != nil {
		t.Error(err)
	}
	if e := p.wait(b); e.Code != 0 {
		t.Errorf("exit %+v", e)
	}
	if got := output(readLog(t, b.req.LogPath), "stdout"); got != "one\ntwo\n" {
		t.Errorf("log %q", got)
	}
}

func TestWithoutStdinItIsEmpty(t *testing.T) {
	p := newPod(t, "crun")
	b, e := p.runShell("/bin/busybox cat; [ -c /proc/self/fd/0 ] || exit 1")
	if e.Code != 0 {
		t.Errorf("exit %+v: %v", e, readLog(t, b.req.LogPath))
	}
}

// slowWriter takes about a quarter of a mebibyte a second until it is told to hurry.
type slowWriter struct {
	bytes.Buffer
	hurry chan struct{}
}

func (w *slowWriter) Write(p []byte) (int, error) {
	select {
	case <-w.hurry:
	case <-time.After(4 * time.Duration(len(p)) * time.Microsecond):
	}
	return w.Buffer.Write(p)
}

// A client that never reads, or reads slowly, holds nobody up (for how long at
// most, monitor/tests/test_attach.c shows by a clock of its own), and
// learns what it has missed. One that reads as fast as it can misses nothing.
func TestSlowClient(t *testing.T) {
	p := newPod(t, "crun")
	const bursts, lines, width = 30, 300000, 100
	// Each burst is asked for by the brisk client, when it has the one before: so
	// that on however busy a machine it reads as fast as there is something.
	b := p.bundle("/bin/sh", "-c", fmt.Sprintf("while read go; do /bin/busybox yes %s | /bin/busybox head -n %d; done",
		strings.Repeat("x", width-1), lines/bursts))
	b.req.Stdin, b.req.StdinOnce = true, false
	p.create(b)
	stuck := p.attach(b, allStreams)
	slow, slowly, slowEnd := p.attach(b, allStreams), &slowWriter{hurry: make(chan struct{})}, make(chan Copied, 1)
	go func() {
		c, _ := slow.Copy(nil, slowly, nil)
		slowEnd <- c
	}()
	brisk := p.attach(b, allStreams)
	p.start(b)
	begin := time.Now()
	for burst := range bursts {
		if _, err := brisk.Write([]byte("go\n")); err != nil {
			t.Fatal(err)
		}
		for got := 0; got < lines*width/bursts; {
			e, err := brisk.Receive()
			if err != nil || e.Kind != StdoutData {
				t.Fatalf("the brisk client got %+v, %v in burst %d", e, err, burst)
			}
			got += len(e.Data)
		}
	}
	if err := p.client.CloseStdin(t.Context(), b.req.ID); err != nil {
		t.Fatal(err)
	}
	if e := p.wait(b); e.Code != 0 {
		t.Errorf("exit %+v", e)
	}
	if took := time.Since(begin); took > time.Minute { // it takes the slow client two
		t.Errorf("the container took %s", took)
	}
	close(slowly.hurry)
	records := readLog(t, b.req.LogPath)
	if len(records) != lines {
		t.Errorf("%d records in the log", len(records))
	}
	late := <-copyAll(stuck, nil)
	if late.err != nil || late.Lost == 0 || !late.Exited {
		t.Errorf("the stuck client: %+v, %v", late.Copied, late.err)
	}
	if got := uint64(late.stdout.Len()) + late.Lost; got != lines*width {
		t.Errorf("the stuck client knows of %d bytes, want %d", got, lines*width)
	}
	end := <-slowEnd
	if got := uint64(slowly.Len()) + end.Lost; got != lines*width || end.Lost == 0 || !end.Exited {
		t.Errorf("the slow client knows of %d bytes, want %d: %+v", got, lines*width, end)
	}
}

// A client that does not read before the container has ended misses nothing of
// what is kept for it.
func TestOutputForALateClient(t *testing.T) {
	p := newPod(t, "crun")
	const size = 1 << 20
	b := p.bundle("/bin/sh", "-c", fmt.Sprintf("/bin/busybox head -c %d /dev/zero", size))
	p.create(b)
	s := p.attach(b, allStreams)
	p.start(b)
	if e := p.wait(b); e.Code != 0 {
		t.Errorf("exit %+v", e)
	}
	if c := <-copyAll(s, nil); c.err != nil || c.Lost != 0 || c.stdout.Len() != size || !c.Exited {
		t.Errorf("got %d bytes of %d: %+v, %v", c.stdout.Len(), size, c.Copied, c.err)
	}
}

// tty prepares a container with a terminal.
func (p *pod) tty(args ...string) *bundle {
	b := p.bundle(args...)
	b.process()["terminal"] = true
	b.req.TTY, b.req.Stdin = true, true
	b.req.ConsoleSocket = p.client.ConsoleSocket(b.req.ID)
	n := len(b.req.Args) - 1
	b.req.Args = append(b.req.Args[:n:n], "--console-socket", b.req.ConsoleSocket, b.req.Args[n])
	return b
}

func TestTerminal(t *testing.T) {
	eachRuntime(t, func(t *testing.T, p *pod) {
		b := p.tty("/bin/sh", "-c", "[ -t 0 ] && [ -t 1 ] && [ -t 2 ] || exit 1; read word; /bin/busybox stty size; echo got $word; /bin/busybox seq 20000; exit 6")
		p.create(b)
		s := p.attach(b, allStreams)
		if err := s.Resize(t.Context(), 132, 43); err != nil {
			t.Error(err)
		}
		done := copyAll(s, nil)
		p.start(b)
		if _, err := io.WriteString(s, "hello\n"); err != nil {
			t.Error(err)
		}
		c := <-done
		var want strings.Builder
		want.WriteString("hello\r\n43 132\r\ngot hello\r\n")
		for i := 1; i <= 20000; i++ {
			fmt.Fprintf(&want, "%d\r\n", i)
		}
		if c.err != nil || c.stdout.String() != want.String() || c.Exit.Code != 6 {
			t.Errorf("%v, %+v, %.100q", c.err, c.Exit, c.stdout.String())
		}
		p.wait(b)
		if got := output(readLog(t, b.req.LogPath), "stdout"); got != want.String() {
			t.Errorf("log %.100q", got)
		}
		if left, _ := filepath.Glob(filepath.Join(p.dir, "tty-*")); len(left) != 0 {
			t.Errorf("left behind: %v", left)
		}
	})
}

// A terminal that nobody holds for a moment is not at its end.
func TestTerminalIsReopened(t *testing.T) {
	p := newPod(t, "crun")
	b := p.tty("/bin/sh", "-c", "t=$(/bin/busybox tty); exec </dev/null >/dev/null 2>&1; /bin/busybox sleep 0.3; echo back >$t; /bin/busybox sleep 0.3; echo again >$t")
	p.create(b)
	p.start(b)
	p.wait(b)
	if got := output(readLog(t, b.req.LogPath), "stdout"); got != "back\r\nagain\r\n" {
		t.Errorf("log %q", got)
	}
}

func TestResizeWithoutTerminal(t *testing.T) {
	p := newPod(t, "crun")
	b := p.bundle("/bin/busybox", "sleep", "100")
	p.create(b)
	if err := p.client.Resize(t.Context(), b.req.ID, 80, 25); errkind.Of(err) != errkind.Precondition {
		t.Errorf("got %v", err)
	}
}

func TestTerminalThatNeverComes(t *testing.T) {
	p := newPod(t, "crun")
	b := p.tty("/bin/sh")
	delete(b.process(), "terminal")
	n := len(b.req.Args) - 3
	b.req.Args = append(b.req.Args[:n:n], string(b.req.ID))
	b.write(t)
	p.started = append(p.started, string(b.req.ID))
	if _, err := p.client.Create(t.Context(), b.req); err == nil || !strings.Contains(err.Error(), "terminal") {
		t.Errorf("got %v", err)
	}
}

// An attached client whose monitor dies hears of it.
func TestMonitorDies(t *testing.T) {
	p := newPod(t, "crun")
	b := p.bundle("/bin/busybox", "sleep", "1000")
	pid := p.create(b)
	p.start(b)
	s := p.attach(b, allStreams)
	if err := unix.Kill(p.client.PID(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Receive(); !errors.Is(err, ErrDisconnected) {
		t.Errorf("receive: %v", err)
	}
	<-p.client.Done()
	if _, err := p.client.Containers(t.Context()); !errors.Is(err, ErrDisconnected) {
		t.Errorf("containers: %v", err)
	}
	if _, err := Connect(t.Context(), p.dir, Handler{}); err == nil {
		t.Error("connected to a dead monitor")
	}
	if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); err != nil {
		t.Errorf("the container is gone too: %v", err)
	}
}

// A stopped monitor delays only those who ask it, and only until their deadline.
func TestStoppedMonitor(t *testing.T) {
	p := newPod(t, "crun")
	if err := unix.Kill(p.client.PID(), unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for range 300 { // enough for the socket's buffer to fill up
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Millisecond)
		b := p.bundle("/bin/sh")
		b.req.Args = append(b.req.Args, strings.Repeat("x", 30000))
		b.req.ExitFile = "relative, so refused"
		if _, err := p.client.Create(ctx, b.req); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		cancel()
	}
	if err := unix.Kill(p.client.PID(), unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if _, err := p.client.Containers(t.Context()); err != nil {
		t.Error(err)
	}
}
