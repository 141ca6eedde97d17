package check

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-cri/gantry/internal/config"
	"github.com/gantry-cri/gantry/internal/network"
	"github.com/gantry-cri/gantry/internal/node"
	carried "github.com/gantry-cri/gantry/internal/programs"
	"github.com/gantry-cri/gantry/internal/selinux"
	"github.com/gantry-cri/gantry/internal/storage"
	"github.com/gantry-cri/gantry/internal/systemd"
)

// Real is the node that this runs on, with a configuration or why it is not valid.
func Real(cfg config.Config, problem error) *Node {
	n := &Node{
		Root:      "/",
		Config:    cfg,
		ConfigErr: problem,
		UID:       os.Geteuid(),
		Now:       time.Now(),
		Run:       run,
		Overlay:   storage.ProbeOverlay,
		Space:     space,
		Systemd:   systemd.New(systemd.AddressFrom(os.Getenv), Patience).Reach,
		Network:   network.Look,
		Programs:  carried.Verify,
	}
	n.Facts, n.FactsErr = node.Probe()
	n.Confinement = func() error { return selinux.Real(n.Facts.SELinux).Problem() }
	n.Synchronized = synchronized
	return n
}

// outputMax is how much of a command's output is kept.
const outputMax = 64 << 10

// run runs a command in a process group of its own, which it kills when ctx ends.
func run(ctx context.Context, argv ...string) (string, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	cmd.WaitDelay = Patience / 10
	out := &head{}
	cmd.Stdout, cmd.Stderr = out, out
	err := cmd.Run()
	switch {
	case ctx.Err() != nil:
		return "", fmt.Errorf("no answer within %s", Patience)
	case errors.Is(err, exec.ErrWaitDelay):
		err = nil
	case err != nil && out.Len() > 0:
		err = fmt.Errorf("%w: %s", err, firstLine(out.String()))
	}
	return out.String(), err
}

// head keeps the beginning of what is written to it.
type head struct{ strings.Builder }

func (h *head) Write(p []byte) (int, error) {
	h.Builder.Write(p[:min(len(p), outputMax-h.Len())])
	return len(p), nil
}

func space(file string) (Space, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(file, &st); err != nil {
		return Space{}, &os.PathError{Op: "statfs", Path: file, Err: err}
	}
	block := uint64(st.Frsize)
	return Space{
		Size: st.Blocks * block, Free: st.Bavail * block,
		Inodes: st.Files, FreeInodes: st.Ffree,
		ReadOnly: st.Flags&unix.ST_RDONLY != 0, NotExecutes: st.Flags&unix.ST_NOEXEC != 0,
	}, nil
}

// synchronized asks the kernel: adjtimex(2), which changes nothing when told so.
func synchronized() bool {
	state, err := unix.Adjtimex(&unix.Timex{})
	return err == nil && state != unix.TIME_ERROR
}
