package oci

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// procKey names a process for good: a PID alone is given again.
type procKey struct {
	pid   int
	start uint64 // in the kernel's ticks after boot
}

// proc is what /proc/PID/stat says of a process.
type proc struct {
	procKey
	ppid, session int
	state         byte // 'Z' and 'X' are dead
}

func procPath(pid int, name string) string {
	return filepath.Join("/proc", strconv.Itoa(pid), name)
}

// readProc returns false if there is no such process.
func readProc(pid int) (proc, bool) {
	text, err := os.ReadFile(procPath(pid, "stat"))
	if err != nil {
		return proc{}, false
	}
	return parseStat(pid, string(text))
}

// parseStat reads a line of the format of proc_pid_stat(5). The process's
// name, in parentheses, can hold anything, parentheses and spaces too.
func parseStat(pid int, text string) (proc, bool) {
	end := strings.LastIndexByte(text, ')')
	if end < 0 {
		return proc{}, false
	}
	fields := strings.Fields(text[end+1:]) // from the third field on
	if len(fields) < 20 || len(fields[0]) != 1 {
		return proc{}, false
	}
	ppid, err1 := strconv.Atoi(fields[1])
	session, err2 := strconv.Atoi(fields[3])
	start, err3 := strconv.ParseUint(fields[19], 10, 64)
	if err1 != nil || err2 != nil || err3 != nil {
		return proc{}, false
	}
	return proc{procKey{pid, start}, ppid, session, fields[0][0]}, true
}

// signal sends sig to the process, if it still is the one that was read. It
// is meant for processes that are looked for again until they are gone, so
// failures are not told.
func (p proc) signal(sig unix.Signal) {
	fd, err := unix.PidfdOpen(p.pid, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd) // a pidfd has nothing to lose
	if now, ok := readProc(p.pid); ok && now.procKey == p.procKey {
		_ = unix.PidfdSendSignal(fd, sig, nil, 0)
	}
}

// children lists the child processes of all threads of pid.
func children(pid int) []int {
	files, err := filepath.Glob(procPath(pid, "task/*/children"))
	if err != nil {
		return nil
	}
	var pids []int
	for _, file := range files {
		pids = append(pids, readPIDs(file)...)
	}
	return pids
}

// cgroupMembers lists the processes of the cgroup whose directory is given
// and of all cgroups below it.
func cgroupMembers(dir string) []int {
	pids := readPIDs(filepath.Join(dir, "cgroup.procs"))
	entries, err := os.ReadDir(dir)
	if err != nil {
		return pids
	}
	for _, entry := range entries {
		if entry.IsDir() {
			pids = append(pids, cgroupMembers(filepath.Join(dir, entry.Name()))...)
		}
	}
	return pids
}

// readPIDs reads numbers separated by white space; a file that is gone has none.
func readPIDs(file string) []int {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	var pids []int
	for field := range bytes.FieldsSeq(text) {
		if pid, err := strconv.Atoi(string(field)); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	return pids
}
