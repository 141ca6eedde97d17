package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-cri/gantry/internal/errkind"
	"github.com/gantry-cri/gantry/internal/id"
	"github.com/gantry-cri/gantry/internal/monitor"
	"github.com/gantry-cri/gantry/internal/statefile"
)

// Recover takes over the containers that an earlier daemon left in pod's
// directory, from their records alone: it waits for no monitor. Afterwards
// the pod's monitor, once connected, tells exits that happened meanwhile.
// What can't be read is left where it is and reported in the error, which
// stops nothing.
func (m *Manager) Recover(ctx context.Context, pod *Pod) error {
	entries, err := os.ReadDir(filepath.Join(pod.Dir, ContainersIn))
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if !id.Valid(e.Name()) {
			errs = append(errs, fmt.Errorf("%s: not a container's directory", e.Name()))
			continue
		}
		if err := m.recoverOne(ctx, pod, id.Container(e.Name())); err != nil {
			errs = append(errs, fmt.Errorf("container %s: %w", e.Name(), err))
		}
	}
	return errors.Join(errs...)
}

func (m *Manager) recoverOne(ctx context.Context, pod *Pod, ctr id.Container) error {
	dir := dirOf(pod, ctr)
	var rec Record
	err := statefile.Read(filepath.Join(dir, recordFile), recordVer, &rec)
	if errors.Is(err, fs.ErrNotExist) {
		return os.RemoveAll(dir) // Create ended before its first side effect
	}
	if err != nil {
		return err
	}
	if rec.ID != ctr || rec.Pod != pod.ID {
		return fmt.Errorf("%w: it is the record of container %s in pod %s", statefile.ErrDamaged, rec.ID, rec.Pod)
	}
	var ph phase
	err = statefile.Read(filepath.Join(dir, stateFile), stateVer, &ph)
	if errors.Is(err, fs.ErrNotExist) {
		m.undoCreate(m.newContainer(rec, pod, Status{}))
		return nil
	}
	if err != nil {
		return err
	}
	exit, ended, err := monitor.ReadExit(filepath.Join(dir, exitFile))
	if err != nil {
		return err
	}
	c := m.newContainer(rec, pod, ph.status())
	if ended {
		c.settle(c.Status().exited(exit))
	} else if ph.Starting {
		c.settle(c.askWhetherStarted(ctx, ph))
	}
	if ph.Cleaned {
		close(c.cleaned)
	}
	pending, err := c.recoverLimits()
	if err != nil {
		return err
	}
	m.add(c)
	if c.Status().State == Exited && !ph.Cleaned {
		c.tellUnheardExit()
		go c.cleanUpInBackground()
	} else if pending {
		go c.settleUpdateInBackground()
	}
	return nil
}

// settle sets the status of a container that nobody sees yet.
func (c *Container) settle(s Status) {
	c.status.Store(&s)
	if s.State == Exited {
		close(c.gone)
	}
}

func (p phase) status() Status {
	st := Status{State: Created, PID: p.PID, Reason: p.Reason, Message: p.Message}
	if !p.StartedAt.IsZero() && !p.Starting {
		st.State, st.StartedAt = Running, p.StartedAt
	}
	return st
}

// askWhetherStarted decides what became of a start during which the daemon
// ended.
func (c *Container) askWhetherStarted(ctx context.Context, ph phase) Status {
	st := c.Status()
	ctx, cancel := context.WithTimeout(ctx, c.settings().RuntimeTimeout)
	defer cancel()
	rs, err := c.pod.Runtime.State(ctx, string(c.Record.ID))
	if err != nil {
		c.log.Error("the runtime does not say whether the container was started; taking it as created", "err", err)
		return st
	}
	if rs.Status != "created" {
		st.State, st.StartedAt = Running, ph.StartedAt
	}
	return st
}

// Pauses between attempts to undo an interrupted creation: doubling.
const (
	firstRetry = time.Second
	lastRetry  = 5 * time.Minute
)

// undoCreate undoes a creation during which the daemon ended. The monitor may
// still be at it: it is waited for in the background, with the container in
// no list.
func (m *Manager) undoCreate(c *Container) {
	m.add(c)
	go func() {
		for wait := firstRetry; ; wait = min(2*wait, lastRetry) {
			ctx, cancel := context.WithTimeout(context.Background(), m.limit())
			err := c.undoInterrupted(ctx)
			cancel()
			if err == nil || errkind.Of(err) == errkind.NotFound {
				return
			}
			c.log.Warn("an interrupted creation is not undone yet; it is retried", "err", err)
			time.Sleep(wait)
		}
	}()
}

func (c *Container) undoInterrupted(ctx context.Context) error {
	mon, err := c.pod.Monitor()
	if errkind.Of(err) == errkind.Unavailable {
		return err // it may be at the creation still
	}
	if err == nil {
		if err := mon.AwaitCreate(ctx, c.Record.ID); err != nil && !errors.Is(err, monitor.ErrDisconnected) {
			return err
		}
		if err := mon.Kill(ctx, c.Record.ID, unix.SIGKILL); err != nil && !errors.Is(err, monitor.ErrExited) {
			c.log.Debug("kill an interrupted creation", "err", err)
		}
	}
	return c.discard(ctx)
}
