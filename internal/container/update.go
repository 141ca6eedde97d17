package container

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/internal/cgroup"
	"github.com/gantry-cri/gantry/internal/errkind"
	"github.com/gantry-cri/gantry/internal/flight"
	"github.com/gantry-cri/gantry/internal/oci"
	"github.com/gantry-cri/gantry/internal/statefile"
)

type linuxResources = runtimeapi.LinuxContainerResources

// limits is what resources.json holds. It is written before an update touches
// the cgroup, with the update as Pending, and after it. Recovery takes a pending
// update back: its caller was never told of a success.
type limits struct {
	Now     statefile.Proto[*linuxResources] `json:"now"`
	Pending *pendingUpdate                   `json:"pending,omitempty"`
}

// pendingUpdate is an update that may have been made, wholly, in part, or not at all.
type pendingUpdate struct {
	All    statefile.Proto[*linuxResources] `json:"all"`   // every limit after it
	Delta  statefile.Proto[*linuxResources] `json:"delta"` // what it sets
	Change cgroup.Change                    `json:"change,omitempty"`
}

// Resources are the limits that hold now: those of the request that the
// container was created from, with every update since. Read only.
func (c *Container) Resources() *runtimeapi.LinuxContainerResources { return c.resources.Load() }

// Update changes limits of a container that was created or runs; what r does
// not specify stays. It is checked as a whole before anything is written; when
// it fails, everything is as before. The kind of the error is Precondition for
// a container that has exited, and for a limit that its cgroup, or what it uses
// now, does not allow. Updates of one container are made one after the other.
func (m *Manager) Update(ctx context.Context, c *Container, r *runtimeapi.LinuxContainerResources) error {
	request, err := proto.MarshalOptions{Deterministic: true}.Marshal(r)
	if err != nil {
		return fmt.Errorf("update container %s: %w", c.Record.ID, err)
	}
	key := fmt.Sprintf("update container %s (%x)", c.Record.ID, sha256.Sum256(request))
	_, err = flight.Do(ctx, &m.ops, key, m.limit(), func(ctx context.Context) (struct{}, error) {
		if err := c.update(ctx, r); err != nil {
			return struct{}{}, fmt.Errorf("update container %s: %w", c.Record.ID, err)
		}
		return struct{}{}, nil
	})
	return err
}

func (c *Container) update(ctx context.Context, r *linuxResources) error {
	if err := oci.CheckResources(r); err != nil {
		return err
	}
	c.op.Lock()
	defer c.op.Unlock()
	if st := c.Status(); st.State == Exited {
		return errkind.Errorf(errkind.Precondition, "it is %s", st.State)
	}
	if err := c.settleUpdate(ctx); err != nil {
		return fmt.Errorf("an earlier update is not taken back yet: %w", err)
	}
	all, delta := oci.UpdatedResources(c.Resources(), r)
	if _, err := oci.Resources(all, c.env.Node); err != nil {
		return err
	}
	pending := &pendingUpdate{All: statefile.Of(all), Delta: statefile.Of(delta)}
	if err := c.plan(pending); err != nil {
		return err
	}
	if err := c.writeLimits(limits{Now: statefile.Of(c.Resources()), Pending: pending}); err != nil {
		return err
	}
	if err := c.apply(ctx, pending); err != nil {
		return errors.Join(err, c.takeBack(ctx, pending))
	}
	if err := c.writeLimits(limits{Now: pending.All}); err != nil {
		return errors.Join(err, c.takeBack(ctx, pending))
	}
	c.resources.Store(all)
	return nil
}

// plan reads what the update replaces. Where the runtime's containers are
// processes of this kernel the limits are written to the cgroup's files by the
// daemon itself: that takes microseconds where RUNTIME update takes a process,
// tells exactly which value was refused, and can be taken back to the letter.
func (c *Container) plan(u *pendingUpdate) error {
	if !c.pod.Runtime.SharesKernel() {
		return nil
	}
	delta, err := oci.Resources(u.Delta.Message, c.env.Node)
	if err != nil {
		return err
	}
	u.Change, err = cgroup.Limits(c.env.Node, c.Record.Cgroup, delta, uint64(c.Resources().GetCpuShares()))
	return err
}

// apply makes an update. It may have been made in part when it fails.
func (c *Container) apply(ctx context.Context, u *pendingUpdate) error {
	if err := u.Change.Apply(); err != nil {
		return err
	}
	if c.pod.Runtime.SharesKernel() {
		if err := c.setOOMScore(c.Resources(), u.All.Message); err != nil {
			return err
		}
	}
	return c.tellRuntime(ctx, u.Delta.Message)
}

func (c *Container) setOOMScore(former, next *linuxResources) error {
	n := c.env.Node
	return cgroup.SetOOMScore(n, c.Record.Cgroup, n.ClampOOMScoreAdj(former.GetOomScoreAdj()), n.ClampOOMScoreAdj(next.GetOomScoreAdj()))
}

// tellRuntime runs RUNTIME update where others than the cgroup's files have to
// know: a runtime with a kernel of its own, or systemd, which would set its
// former limits again.
func (c *Container) tellRuntime(ctx context.Context, delta *linuxResources) error {
	if c.pod.Runtime.SharesKernel() && c.pod.Cgroups != cgroup.Systemd {
		return nil
	}
	spec, err := oci.Resources(delta, c.env.Node)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, c.settings().RuntimeTimeout)
	defer cancel()
	return c.pod.Runtime.Update(ctx, string(c.Record.ID), c.Dir(), spec)
}

// takeBack undoes an update that was made in part, and then forgets it. It
// needs op held. What it can't undo stays recorded as pending.
func (c *Container) takeBack(ctx context.Context, u *pendingUpdate) error {
	now := c.Resources()
	err := u.Change.Undo()
	if c.pod.Runtime.SharesKernel() {
		err = errors.Join(err, c.setOOMScore(u.All.Message, now))
	}
	err = errors.Join(err, c.tellRuntime(ctx, oci.Restored(now, u.Delta.Message)))
	if err != nil {
		c.log.Error("an update is not taken back; the next one tries again", "err", err)
		return err
	}
	return c.writeLimits(limits{Now: statefile.Of(now)})
}

// settleUpdate finishes what an update left pending: it is taken back, or, if
// the container has grown above its former limits meanwhile, made. It needs op
// held.
func (c *Container) settleUpdate(ctx context.Context) error {
	recorded, err := c.readLimits()
	if err != nil || recorded.Pending == nil {
		return err
	}
	back := c.takeBack(ctx, recorded.Pending)
	if back == nil {
		return nil
	}
	if err := c.apply(ctx, recorded.Pending); err != nil {
		return errors.Join(back, err)
	}
	if err := c.writeLimits(limits{Now: recorded.Pending.All}); err != nil {
		return errors.Join(back, err)
	}
	c.resources.Store(recorded.Pending.All.Message)
	return nil
}

// settleUpdateInBackground settles an update during which the daemon ended.
func (c *Container) settleUpdateInBackground() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*c.settings().RuntimeTimeout)
	defer cancel()
	c.op.Lock()
	defer c.op.Unlock()
	if c.Status().State == Exited {
		return // its limits are history
	}
	if err := c.settleUpdate(ctx); err != nil {
		c.log.Error("an interrupted update is not taken back", "err", err)
	}
}

// recoverLimits finds the limits that hold, and whether an update was under way.
func (c *Container) recoverLimits() (pending bool, err error) {
	recorded, err := c.readLimits()
	if err != nil {
		return false, err
	}
	c.resources.Store(recorded.Now.Message)
	return recorded.Pending != nil, nil
}

// readLimits reads resources.json; without one there was no update yet.
func (c *Container) readLimits() (limits, error) {
	recorded := limits{Now: c.Record.Resources}
	err := statefile.Read(filepath.Join(c.Dir(), limitsFile), limitsVer, &recorded)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return limits{}, fmt.Errorf("limits of container %s: %w", c.Record.ID, err)
	}
	return recorded, nil
}

func (c *Container) writeLimits(l limits) error {
	if err := statefile.Write(filepath.Join(c.Dir(), limitsFile), limitsVer, l); err != nil {
		return fmt.Errorf("record the limits of container %s: %w", c.Record.ID, err)
	}
	return nil
}
