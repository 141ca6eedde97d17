package wipe

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// monitorProgram begins the names of all versions of the monitor.
const monitorProgram = "gantry-monitor-"

// Monitors lists the processes that run a monitor out of the directory bin:
// those of pods, whether there is a record of these or not.
func Monitors(bin string) ([]int, error) {
	bin = resolved(bin)
	return processes("/proc", func(dir string) bool { return isMonitor(dir, bin) })
}

func isMonitor(proc, bin string) bool {
	exe, err := os.Readlink(filepath.Join(proc, "exe"))
	return err == nil && strings.HasPrefix(exe, filepath.Join(bin, monitorProgram))
}

// processes lists those whose directories accept, or are gone by now, tell.
func processes(proc string, accept func(dir string) bool) ([]int, error) {
	entries, err := os.ReadDir(proc)
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil && accept(filepath.Join(proc, e.Name())) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// EndMonitors kills the monitors that Monitors lists, and before each its
// children: the containers, and, as it is their subreaper, what these leave. It
// returns when all are gone, or ctx ends.
func EndMonitors(ctx context.Context, bin string) error {
	for {
		pids, err := Monitors(bin)
		if err != nil || len(pids) == 0 {
			return err
		}
		for _, pid := range pids {
			if err := endMonitor(pid, resolved(bin)); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("processes %v, monitors of pods, do not end though killed: %w", pids, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// endMonitor kills the children of a monitor, or, if it has none, the monitor.
func endMonitor(pid int, bin string) error {
	self, err := hold(pid, func(proc string) bool { return isMonitor(proc, bin) })
	if err != nil || self < 0 {
		return err
	}
	defer unix.Close(self)
	isChild := func(proc string) bool { return parentOf(proc) == pid }
	children, err := processes("/proc", isChild)
	if err != nil {
		return err
	}
	if len(children) == 0 {
		return kill(self, pid)
	}
	for _, child := range children {
		fd, err := hold(child, isChild)
		if err == nil && fd >= 0 {
			err = errors.Join(kill(fd, child), unix.Close(fd))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// hold opens a process that is, then, still what it was taken for; -1 if it is
// gone or another.
func hold(pid int, still func(proc string) bool) (int, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return -1, nil
	}
	if err != nil {
		return -1, fmt.Errorf("take hold of process %d: %w", pid, err)
	}
	if !still(filepath.Join("/proc", strconv.Itoa(pid))) {
		return -1, unix.Close(fd)
	}
	return fd, nil
}

func kill(fd, pid int) error {
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill process %d: %w", pid, err)
	}
	return nil
}

// parentOf reads the parent out of proc_pid_stat(5); 0 if the process has ended.
func parentOf(proc string) int {
	text, err := os.ReadFile(filepath.Join(proc, "stat"))
	if err != nil {
		return 0
	}
	after := string(text)[strings.LastIndexByte(string(text), ')')+1:]
	fields := strings.Fields(after)
	if len(fields) < 2 || fields[0] == "Z" {
		return 0
	}
	parent, err := strconv.Atoi(fields[1])
	if err != nil {
		return 0
	}
	return parent
}
