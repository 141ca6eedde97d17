package testenv

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const insideVariable = "GANTRY_TEST_MOUNT_NAMESPACE"

// Main is the body of a TestMain: it runs the tests in a mount namespace of
// their own whose mounts are shared, as systemd makes them on most nodes and as
// tests of mount propagation need, and leaves the machine's own as they are.
// It returns what to exit with.
func Main(m *testing.M, shared *Images) int {
	if os.Getenv(insideVariable) == "" && os.Geteuid() == 0 {
		return mainInside()
	}
	if os.Geteuid() == 0 {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
			fmt.Fprintln(os.Stderr, "make the mounts of the test's namespace shared:", err)
			return 1
		}
	}
	defer shared.Stop()
	return m.Run()
}

// mainInside runs this program again in a new mount namespace.
func mainInside() int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), insideVariable+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS, Pdeathsig: syscall.SIGTERM}
	err := cmd.Run()
	if exit, ok := err.(*exec.ExitError); ok {
		return exit.ExitCode()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "run the tests in a mount namespace:", err)
		return 1
	}
	return 0
}

// Runtimes returns the OCI runtimes to run a test with: those that the variable
// GANTRY_TEST_RUNTIMES lists, or crun and runc.
func Runtimes() []string {
	if list := os.Getenv("GANTRY_TEST_RUNTIMES"); list != "" {
		return strings.Split(list, ",")
	}
	return []string{"crun", "runc"}
}
