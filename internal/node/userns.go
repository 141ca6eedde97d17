package node

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// NewUserNamespace makes a user namespace that maps length ids from 0 up to the
// node's from host up. It lives as long as the returned file is open. program,
// which must do nothing but wait, runs in it for an instant, and ends with the
// daemon if that is killed then.
func NewUserNamespace(program string, host, length int) (_ *os.File, err error) {
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: host, Size: length}}
	cmd := exec.Command(program)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids, Pdeathsig: unix.SIGKILL,
	}
	runtime.LockOSThread() // its end, not only the daemon's, would send the signal
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("make a user namespace: %w", err)
	}
	defer func() {
		killErr := cmd.Process.Kill()
		var exit *exec.ExitError
		if waitErr := cmd.Wait(); !errors.As(waitErr, &exit) {
			killErr = errors.Join(killErr, waitErr)
		}
		err = errors.Join(err, killErr)
	}()
	namespace, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", cmd.Process.Pid))
	if err != nil {
		return nil, fmt.Errorf("make a user namespace: %w", err)
	}
	return namespace, nil
}
