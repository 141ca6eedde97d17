package oci

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// killTimeout bounds the killing of an exec's processes.
	killTimeout = 700 * time.Millisecond
	// leaveGrace is how long the runtime may take to end by itself after the
	// process that it waits for was killed.
	leaveGrace = 100 * time.Millisecond
)

// A mark is a timer slack, in nanoseconds, that differs from the usual one by
// a few microseconds at most. The runtime of one exec is started with it, and
// since every child inherits its parent's, across fork, execve and setsid, it
// tells the processes that came of this exec from the others of the container
// even when they have left their parent, their session and their terminal.
// See PR_SET_TIMERSLACK in prctl(2).
type mark uint64

// unmarked stands for a mark that could not be set.
const unmarked mark = 0

const (
	usualSlack = 50_000 // the kernel's default
	markRange  = 8192
)

// newMark returns a mark that no exec of this runtime had in a while.
func (r *Runtime) newMark() mark {
	return mark(usualSlack + 1 + r.marks.Add(1)%markRange)
}

// kill ends the process of e, all that came of it, and the runtime. It
// returns when they are gone, or after killTimeout with an error; of a process
// in a sandbox, after insideTimeout as well.
func (e *execution) kill() error {
	if err := e.inside.kill(e.exited); err != nil {
		return errors.Join(err, e.killOutside())
	}
	return e.killOutside()
}

// killOutside is kill for what runs on the node.
func (e *execution) killOutside() error {
	deadline := time.Now().Add(killTimeout)
	for {
		if err := e.killProcesses(deadline); err != nil {
			return errors.Join(err, e.killRuntime(deadline))
		}
		if err := e.killRuntime(deadline); err != nil {
			return err
		}
		// Until it ended the runtime may have started what nobody saw.
		if len(e.processes()) == 0 {
			return nil
		}
	}
}

// killProcesses kills what came of e, but for the runtime, until nothing is left.
func (e *execution) killProcesses(deadline time.Time) error {
	for {
		victims := e.freeze(deadline)
		if len(victims) == 0 {
			return nil
		}
		for _, p := range victims {
			p.signal(unix.SIGKILL)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d of its processes do not die", len(victims))
		}
		time.Sleep(time.Millisecond)
	}
}

// freeze stops every living process that came of e, but for the runtime
// itself, and returns them. What is stopped can't fork, so when a look finds
// no new process, none is missing.
func (e *execution) freeze(deadline time.Time) []proc {
	var stopped []proc
	seen := map[procKey]bool{}
	for {
		fresh := false
		for _, p := range e.processes() {
			if !seen[p.procKey] {
				p.signal(unix.SIGSTOP)
				seen[p.procKey], fresh = true, true
				stopped = append(stopped, p)
			}
		}
		if !fresh || time.Now().After(deadline) {
			return stopped
		}
	}
}

// killRuntime waits for the runtime, which ends when its process is gone, and
// kills it and its process group if it does not, or has not started one.
func (e *execution) killRuntime(deadline time.Time) error {
	grace := leaveGrace
	if e.processID() == 0 {
		grace = 0
	}
	select {
	case <-e.exited:
		return nil
	case <-time.After(grace):
	}
	err := unix.Kill(-e.Cmd.Process.Pid, unix.SIGKILL)
	if errors.Is(err, unix.ESRCH) {
		err = nil
	}
	select {
	case <-e.exited:
		return err
	case <-time.After(max(time.Until(deadline), leaveGrace)):
		return errors.Join(err, fmt.Errorf("runtime process %d does not die", e.Cmd.Process.Pid))
	}
}

// processes finds the living processes that came of e, without the runtime:
// the runtime's descendants, and what of the container's cgroup carries the
// mark, holds the output open, or has one of these as its parent or session
// leader. Nothing older than the runtime is ever among them.
func (e *execution) processes() []proc {
	runtime := e.Cmd.Process.Pid
	found := map[int]proc{}
	select {
	case <-e.exited: // the number may be another process's by now
	default:
		e.descendants(runtime, found)
	}
	e.closure(e.members(), found)
	delete(found, runtime)
	delete(found, os.Getpid())
	living := make([]proc, 0, len(found))
	for _, p := range found {
		if p.state != 'Z' && p.state != 'X' {
			living = append(living, p)
		}
	}
	return living
}

// descendants adds the children of pid, and theirs, to found.
func (e *execution) descendants(pid int, found map[int]proc) {
	for _, child := range children(pid) {
		p, ok := readProc(child)
		if _, known := found[child]; ok && !known && p.start >= e.started {
			found[child] = p
			e.descendants(child, found)
		}
	}
}

// closure adds those of members to found that belong to e, and all that
// belong to one of them.
func (e *execution) closure(members []proc, found map[int]proc) {
	main := e.processID()
	for _, p := range members {
		if p.pid == main || e.marked(p.pid) || e.holdsOutput(p.pid) {
			found[p.pid] = p
		}
	}
	for grown := true; grown; {
		grown = false
		for _, p := range members {
			_, known := found[p.pid]
			_, parent := found[p.ppid]
			_, leader := found[p.session]
			if !known && (parent || leader) {
				found[p.pid], grown = p, true
			}
		}
	}
}

// members are the processes of the container that are not older than the runtime.
func (e *execution) members() []proc {
	var members []proc
	seen := map[int]bool{}
	for _, file := range e.cgroupProcs {
		for _, pid := range cgroupMembers(filepath.Dir(file)) {
			if seen[pid] {
				continue
			}
			seen[pid] = true
			if p, ok := readProc(pid); ok && p.start >= e.started {
				members = append(members, p)
			}
		}
	}
	return members
}

// marked reports whether the process carries the mark of e.
func (e *execution) marked(pid int) bool {
	if e.mark == unmarked {
		return false
	}
	text, err := os.ReadFile(procPath(pid, "timerslack_ns"))
	if err != nil {
		return false
	}
	slack, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	return err == nil && mark(slack) == e.mark
}

// holdsOutput reports whether the process has one of the output pipes open.
func (e *execution) holdsOutput(pid int) bool {
	dir := procPath(pid, "fd")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	for _, entry := range entries {
		target, err := os.Readlink(filepath.Join(dir, entry.Name()))
		if err == nil && slices.Contains(e.outputs, target) {
			return true
		}
	}
	return false
}
