package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// reap is PID 1 of the benchmark's namespaces: it completes them, starts the
// process that measures, and waits for every process that ends until that one
// does.
func reap() error {
	if err := furnish(os.Getenv(dirVariable)); err != nil {
		return fmt.Errorf("set up the benchmark's namespaces: %w", err)
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), stageVariable+"="+stageRun)
	if err := cmd.Start(); err != nil {
		return err
	}
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return fmt.Errorf("wait: %w", err)
		case pid == cmd.Process.Pid && status.Exited():
			os.Exit(status.ExitStatus())
		case pid == cmd.Process.Pid:
			return fmt.Errorf("the measuring process ended by signal %v", status.Signal())
		}
	}
}

// furnish mounts what the new namespaces need. The mounts end up shared, as
// systemd makes them on most nodes.
func furnish(dir string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	run := runDir(dir)
	if err := os.MkdirAll(run, 0o755); err != nil {
		return err
	}
	for _, target := range append(privateDirs(), run) {
		if err := unix.Mount("tmpfs", target, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
			return fmt.Errorf("mount %s: %w", target, err)
		}
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return err
	}
	// iptables' lock is for the host's rules; those of this network namespace have their own.
	if err := os.Setenv("XTABLES_LOCKFILE", run+"/xtables.lock"); err != nil {
		return err
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(lo)
}

// runDir is a tmpfs, as /run is on most nodes, for the servers' run roots.
func runDir(dir string) string { return dir + "/run" }
