package testenv

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// insides is what the daemon holds within itself.
type insides struct {
	goroutines  map[string]int // how many there are of each, by the function that they began with
	descriptors []string       // what each names
}

// insides asks the daemon, and the kernel, what it holds.
func (e *Env) insides() (insides, error) {
	text, err := e.goroutines()
	if err != nil {
		return insides{}, err
	}
	in := insides{goroutines: countGoroutines(text)}
	dir := fmt.Sprintf("/proc/%d/fd", e.DaemonPID())
	entries, err := os.ReadDir(dir)
	if err != nil {
		return insides{}, err
	}
	for _, entry := range entries {
		if name, err := os.Readlink(dir + "/" + entry.Name()); err == nil { // else closed meanwhile
			in.descriptors = append(in.descriptors, name)
		}
	}
	return in, nil
}

// goroutines has the daemon write what its goroutines do, and returns that.
func (e *Env) goroutines() (string, error) {
	file := filepath.Join(e.RunRoot, "goroutines")
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if err := e.daemon.cmd.Process.Signal(syscall.SIGUSR1); err != nil {
		return "", err
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		text, err := os.ReadFile(file)
		if err == nil || time.Now().After(deadline) {
			return string(text), err
		}
	}
}

// countGoroutines reads the text form of a goroutine profile: for each group of
// equal ones a line "<number> @ ...", then their functions, the first one last.
func countGoroutines(profile string) map[string]int {
	counts := map[string]int{}
	for group := range strings.SplitSeq(profile, "\n\n") {
		number, first := 0, ""
		for line := range strings.Lines(group) {
			fields := strings.Fields(line)
			switch {
			case len(fields) > 1 && fields[1] == "@":
				number, _ = strconv.Atoi(fields[0])
			case len(fields) > 2 && fields[0] == "#":
				first, _, _ = strings.Cut(cmp.Or(inside(fields[2]), first), "+0x")
			}
		}
		counts[first] += number
	}
	return counts
}

// stays reports whether a goroutine is one that comes with the first question for
// stats and goes a while after the last one.
func stays(function string) bool {
	return strings.HasSuffix(function, "storage.(*Store).keepMeasuring") ||
		strings.HasSuffix(function, "stats.(*Collector).keepSampling")
}

// inside is function, or "" if it only starts others and so tells nothing.
func inside(function string) string {
	if strings.HasPrefix(function, "sync.(*WaitGroup).Go") {
		return ""
	}
	return function
}

// moreThan lists what in holds beyond before; descriptors by their number, since
// names of sockets and pipes are never the same again.
func (in insides) moreThan(before insides) []string {
	var list []string
	for function, now := range in.goroutines {
		if then := before.goroutines[function]; now > then && !stays(function) {
			list = append(list, fmt.Sprintf("goroutines of the daemon: %d of %s, before %d", now, function, then))
		}
	}
	if now, then := len(in.descriptors), len(before.descriptors); now > then {
		list = append(list, fmt.Sprintf("descriptors of the daemon: %d, before %d: %s", now, then, strings.Join(in.descriptors, " ")))
	}
	return list
}

// checkInsides fails the test for goroutines and descriptors of the daemon that
// were not there when the environment was new. Sessions whose clients have gone
// without a word linger, so it waits longer than for the rest.
func (e *Env) checkInsides() {
	e.t.Helper()
	left := e.settle(30*time.Second, func() []string {
		now, err := e.insides()
		if err != nil {
			return []string{err.Error()}
		}
		return now.moreThan(e.inside)
	})
	for _, leak := range left {
		e.t.Errorf("leaked %s", leak)
	}
}
