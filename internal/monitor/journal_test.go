package monitor

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// journal stands in journald's place: it takes datagrams at a socket.
type journal struct {
	path string
	conn *net.UnixConn
	buf  [1 << 18]byte
}

func newJournal(t *testing.T, path string) *journal {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &journal{path: path, conn: conn}
}

// next reads one message and takes it apart as journald does.
func (j *journal) next(t *testing.T) map[string]string {
	t.Helper()
	buf := j.buf[:]
	if err := j.conn.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	n, err := j.conn.Read(buf)
	if err != nil {
		t.Fatalf("no message came: %v", err)
	}
	fields := map[string]string{}
	for rest := buf[:n]; len(rest) > 0; {
		line, after, ok := bytes.Cut(rest, []byte("\n"))
		if !ok {
			t.Fatalf("malformed message %q", buf[:n])
		}
		if name, value, ok := strings.Cut(string(line), "="); ok {
			fields[name], rest = value, after
			continue
		}
		if len(after) < 8 || uint64(len(after)) < 9+binary.LittleEndian.Uint64(after) {
			t.Fatalf("malformed field %s in %q", line, buf[:n])
		}
		size := binary.LittleEndian.Uint64(after)
		fields[string(line)] = string(after[8 : 8+size])
		if after[8+size] != '\n' {
			t.Fatalf("field %s does not end in %q", line, buf[:n])
		}
		rest = after[9+size:]
	}
	return fields
}

// journalBundle prepares a container whose output goes to the journal, too.
func (p *pod) journalBundle(path, script string) *bundle {
	b := p.bundle("/bin/sh", "-c", script)
	b.req.Journal = path
	b.req.JournalFields = []JournalField{{"CONTAINER_NAME", "ma\nin"}, {"POD_NAME", "pod"}}
	return b
}

func TestJournal(t *testing.T) {
	p := newPod(t, "crun")
	j := newJournal(t, filepath.Join(t.TempDir(), "journal"))
	b := p.journalBundle(j.path, `echo out; echo err >&2; printf '\000\001\377bin\n'; echo; /bin/busybox head -c 40000 /dev/zero; printf last`)
	p.create(b)
	p.start(b)
	var stdout, stderr strings.Builder
	for stdout.Len() < len("out\n\000\001\377bin\n\n")+40000+len("last") || stderr.Len() < len("err\n") {
		m := j.next(t)
		if m["CONTAINER_NAME"] != "ma\nin" || m["POD_NAME"] != "pod" {
			t.Errorf("fields %q", m)
		}
		to := &stdout
		if m["PRIORITY"] == "3" {
			to = &stderr
		}
		to.WriteString(m["MESSAGE"])
		if m["CONTAINER_PARTIAL_MESSAGE"] != "true" {
			to.WriteByte('\n')
		}
	}
	want := "out\n\000\001\377bin\n\n" + strings.Repeat("\000", 40000) + "last"
	if stdout.String() != want || stderr.String() != "err\n" {
		t.Errorf("stdout %d bytes, want %d; stderr %q", stdout.Len(), len(want), stderr.String())
	}
	p.wait(b)
	if got := output(readLog(t, b.req.LogPath), "stdout"); got != want {
		t.Errorf("the log has %d bytes of stdout, want %d", len(got), len(want))
	}
}

// A journald that is slower than the container gets every line all the same.
func TestJournalKeepsUp(t *testing.T) {
	p := newPod(t, "crun")
	j := newJournal(t, filepath.Join(t.TempDir(), "journal"))
	const lines = 30000
	b := p.journalBundle(j.path, fmt.Sprintf("/bin/busybox seq %d", lines))
	b.req.LogPath = "" // the journal alone
	p.create(b)
	p.start(b)
	for i := 1; i <= lines; i++ {
		if m := j.next(t); m["MESSAGE"] != itoa(i) {
			t.Fatalf("line %d is %q", i, m["MESSAGE"])
		}
	}
	p.wait(b)
}

// A journald that hangs, or is not there, keeps nothing from the container and
// its log; when it takes messages again it learns how many are missing.
func TestJournalThatHangs(t *testing.T) {
	p := newPod(t, "crun")
	path := filepath.Join(t.TempDir(), "journal")
	const lines = 100000
	b := p.journalBundle(path, fmt.Sprintf("/bin/busybox seq %d; read word; echo $word; read word; /bin/busybox seq %d; read word; echo $word", lines, lines))
	b.req.Stdin = true
	p.create(b)
	s := p.attach(b, AttachOptions{Stdin: true, Stdout: true})
	p.start(b)
	waitFor(t, "all lines in the log, without a journal", func() bool { return countRecords(t, b.req.LogPath) == lines })

	j := newJournal(t, path)
	say := func(word string) {
		if _, err := s.Write([]byte(word + "\n")); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(300 * time.Millisecond) // so long a journal that is not there may be left alone
	say("hello")
	if m := j.next(t); m["MESSAGE"] != "hello" {
		t.Errorf("got %q", m)
	}
	if m := j.next(t); m["MESSAGE"] != itoa(lines)+" lines of output could not be sent to the journal" {
		t.Errorf("got %q", m)
	}

	say("flood")
	waitFor(t, "all lines in the log, with a journal that hangs", func() bool { return countRecords(t, b.req.LogPath) == 2*lines+1 })
	waitFor(t, "the lines that are taken after all", func() bool {
		for range 100 {
			if j.conn.SetReadDeadline(time.Now().Add(50*time.Millisecond)) != nil {
				return false
			}
			if _, err := j.conn.Read(make([]byte, 1<<16)); err != nil {
				return true
			}
		}
		return false
	})
	time.Sleep(300 * time.Millisecond)
	say("end")
	p.wait(b)
	if m := j.next(t); m["MESSAGE"] != "end" {
		t.Errorf("got %q", m)
	}
	if m := j.next(t); !strings.HasSuffix(m["MESSAGE"], " lines of output could not be sent to the journal") {
		t.Errorf("got %q", m)
	}
}
