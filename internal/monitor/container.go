package monitor

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-cri/gantry/internal/errkind"
	"github.com/gantry-cri/gantry/internal/id"
)

// CreateRequest says how a container is created. All paths are absolute.
type CreateRequest struct {
	ID id.Container
	// Args is the command line of RUNTIME create; Args[0] is a path.
	Args []string
	// PidFile is where the runtime writes the PID of the container's process. What is there is removed first.
	PidFile string
	// ExitFile is the exit record: written at create, so that it needs no room
	// later, and filled in before the exit is told. See ReadExit.
	ExitFile string
	// LogPath is the CRI log. Empty: output is read and dropped.
	LogPath string
	// LogSizeMax bounds the log's size in bytes; a log that would exceed it is
	// replaced by a new one, so the newest output is kept. 0 is no bound; bounds
	// below 32 KiB count as that.
	LogSizeMax int64
	// Journal is the socket of a journald that gets the output too, in its native
	// protocol, with JournalFields in each message. Empty: none. It need not be
	// there. One that takes nothing delays the container for a second at most.
	Journal       string
	JournalFields []JournalField
	// OOMFile is the container's memory.events (cgroup v2) or
	// memory.oom_control (v1), read at its exit. Empty: none.
	OOMFile string
	// Stdin keeps the container's standard input open for attached clients;
	// without it, it is /dev/null. StdinOnce closes it after the first of them.
	Stdin, StdinOnce bool
	// TTY has the runtime send a terminal through ConsoleSocket, where the
	// monitor listens: both or neither. Client.ConsoleSocket names one.
	TTY           bool
	ConsoleSocket string
	Mounts        []Mount
	// OwnerUID and OwnerGID are whom the pipes of the container's output and
	// input belong to, as the node counts: root of its user namespace. A process
	// there that opens /dev/stdout needs that.
	OwnerUID, OwnerGID uint32
	// Timeout is what the runtime may take. Then it is killed and the create
	// fails. It must be positive.
	Timeout time.Duration
}

// Mount is made in the mount namespace in which the runtime creates the
// container, and nowhere else. Exactly one of the fields is set.
type Mount struct {
	Overlay *Overlay
	Shared  *FromProcess
}

// Overlay is an overlay mount.
type Overlay struct {
	Target      string   // an empty directory
	Lower       []string // top layer first; at least one
	Upper, Work string   // both empty: read-only
	Options     []string // such as "volatile" or "metacopy=on"
	// IDsPID is the process of a running container of this monitor in whose
	// user namespace the files of Lower have the owners that they have on disk.
	// Upper is not mapped. 0: ids are the node's.
	IDsPID int
}

// FromProcess is a copy of a mount in another mount namespace of the pod.
type FromProcess struct {
	PID    int    // the process of a running container of this monitor
	Source string // a mount point, as that process sees it
	Target string
}

// Create has the runtime create a container and returns its process's PID. A
// second Create with the same ID joins the first or returns its result. When ctx
// ends, the wait is given up and the create goes on. A failure of the runtime is
// a *CreateError; after any failure the ID is free again.
func (c *Client) Create(ctx context.Context, r CreateRequest) (int, error) {
	fields, err := c.roundTrip(ctx, r.message())
	if err != nil {
		return 0, fmt.Errorf("create container %s: %w", r.ID, err)
	}
	for f := range fieldsOf(fields) {
		if f.tag == gmTagPid {
			return int(f.number()), nil
		}
	}
	return 0, fmt.Errorf("create container %s: %w: no PID", r.ID, errMalformed)
}

func (r *CreateRequest) message() *message {
	m := newMessage(gmCreate, 0)
	m.putString(gmTagContainer, string(r.ID))
	for _, arg := range r.Args {
		m.put(gmTagArg, append([]byte(arg), 0))
		if strings.IndexByte(arg, 0) >= 0 {
			m.fail(errkind.Errorf(errkind.Invalid, "argument %q holds a NUL byte", arg))
		}
	}
	m.putString(gmTagPidFile, r.PidFile)
	m.putString(gmTagExitFile, r.ExitFile)
	m.putString(gmTagLogPath, r.LogPath)
	m.putString(gmTagOomFile, r.OOMFile)
	m.putString(gmTagConsole, r.ConsoleSocket)
	if r.Journal != "" {
		m.putString(gmTagJournal, r.Journal)
		m.put(gmTagJournalFields, encodeFields(r.JournalFields))
	}
	m.putUint32(gmTagFlags, r.flags())
	m.putUint32(gmTagTimeoutMs, uint32(min(r.Timeout.Milliseconds(), math.MaxInt32)))
	if r.OwnerUID != 0 || r.OwnerGID != 0 {
		m.putUint32(gmTagOwnerUid, r.OwnerUID)
		m.putUint32(gmTagOwnerGid, r.OwnerGID)
	}
	if r.LogSizeMax > 0 {
		m.putUint64(gmTagLogLimit, uint64(r.LogSizeMax))
	}
	if r.Timeout <= 0 {
		m.fail(errkind.Errorf(errkind.Invalid, "no timeout"))
	}
	for _, mount := range r.Mounts {
		m.putNested(gmTagMount, mount.put)
	}
	return m
}

func (r *CreateRequest) flags() uint32 {
	var flags uint32
	if r.Stdin {
		flags |= gmStdin
	}
	if r.StdinOnce {
		flags |= gmStdinOnce
	}
	if r.TTY {
		flags |= gmTty
	}
	return flags
}

func (mount Mount) put(m *message) {
	if (mount.Overlay == nil) == (mount.Shared == nil) {
		m.fail(errkind.Errorf(errkind.Invalid, "a mount needs exactly one kind"))
		return
	}
	if s := mount.Shared; s != nil {
		m.putString(gmTagTarget, s.Target)
		m.putString(gmTagSource, s.Source)
		m.putUint32(gmTagFromPid, uint32(s.PID))
		return
	}
	o := mount.Overlay
	m.putString(gmTagTarget, o.Target)
	for _, dir := range o.Lower {
		m.putString(gmTagLower, dir)
	}
	m.putString(gmTagUpper, o.Upper)
	m.putString(gmTagWork, o.Work)
	for _, option := range o.Options {
		m.putString(gmTagOption, option)
	}
	if o.IDsPID != 0 {
		m.putUint32(gmTagIdsPid, uint32(o.IDsPID))
	}
}

// ConsoleSocket returns a path for CreateRequest.ConsoleSocket that is short
// enough for every runtime, however long the pod's directory is.
func (c *Client) ConsoleSocket(ctr id.Container) string {
	return fmt.Sprintf("/proc/%d/cwd/tty-%.16s", c.pid, string(ctr))
}

// about starts a request about one container.
func about(kind uint16, ctr id.Container) *message {
	m := newMessage(kind, 0)
	m.putString(gmTagContainer, string(ctr))
	return m
}

// Kill sends a signal to the container's process. The sender is its parent, so
// that no other process with the same PID can be hit. The error wraps ErrExited
// if the process is gone.
func (c *Client) Kill(ctx context.Context, ctr id.Container, sig unix.Signal) error {
	m := about(gmKill, ctr)
	m.putUint32(gmTagSignal, uint32(sig))
	if _, err := c.roundTrip(ctx, m); err != nil {
		return fmt.Errorf("send %s to container %s: %w", unix.SignalName(sig), ctr, exited(err))
	}
	return nil
}

// exited adds ErrExited to the monitor's word for it.
func exited(err error) error {
	if errors.Is(err, unix.ESRCH) {
		return errkind.Wrap(errkind.Precondition, ErrExited)
	}
	return err
}

// ReopenLog has the monitor close the container's log and open it anew at the
// same path: after a rename of the log, it continues in a new file. Nothing is
// lost or written twice. Without a log, or after all output has ended, it
// succeeds and does nothing.
func (c *Client) ReopenLog(ctx context.Context, ctr id.Container) error {
	if _, err := c.roundTrip(ctx, about(gmReopenLog, ctr)); err != nil {
		return fmt.Errorf("reopen the log of container %s: %w", ctr, err)
	}
	return nil
}

// CloseStdin closes the container's standard input, after what attached clients
// have sent already. It is idempotent.
func (c *Client) CloseStdin(ctx context.Context, ctr id.Container) error {
	if _, err := c.roundTrip(ctx, about(gmCloseStdin, ctr)); err != nil {
		return fmt.Errorf("close stdin of container %s: %w", ctr, err)
	}
	return nil
}

// Resize sets the size of the container's terminal, in characters.
func (c *Client) Resize(ctx context.Context, ctr id.Container, columns, rows uint16) error {
	m := about(gmResize, ctr)
	m.putUint32(gmTagColumns, uint32(columns))
	m.putUint32(gmTagRows, uint32(rows))
	if _, err := c.roundTrip(ctx, m); err != nil {
		return fmt.Errorf("resize the terminal of container %s: %w", ctr, exited(err))
	}
	return nil
}

// Forget frees what the monitor keeps of a container that has exited; its log
// is closed, even if a process that it left behind still writes. A container
// that the monitor does not know is no error.
func (c *Client) Forget(ctx context.Context, ctr id.Container) error {
	if _, err := c.roundTrip(ctx, about(gmForget, ctr)); err != nil {
		return fmt.Errorf("forget container %s: %w", ctr, err)
	}
	return nil
}

// Shutdown ends the monitor. It fails while a container is being created or has
// not exited.
func (c *Client) Shutdown(ctx context.Context) error {
	if _, err := c.roundTrip(ctx, newMessage(gmShutdown, 0)); err != nil {
		return fmt.Errorf("shut down the monitor in %s: %w", c.dir, err)
	}
	return nil
}

// State is a container's state with the monitor.
type State int

// The states. Running includes created, not yet started.
const (
	Creating State = gmStateCreating
	Running  State = gmStateRunning
	Exited   State = gmStateExited
)

// ContainerInfo is what the monitor knows of a container.
type ContainerInfo struct {
	ID      id.Container
	State   State
	PID     int    // 0 while Creating
	LogLost uint64 // bytes of output that the log's disk could not take so far
	Exit    Exit   // when Exited
}

// Containers returns all containers of the pod that are not forgotten.
func (c *Client) Containers(ctx context.Context) ([]ContainerInfo, error) {
	parts, err := c.roundTrips(ctx, newMessage(gmList, 0))
	if err != nil {
		return nil, fmt.Errorf("list containers of the monitor in %s: %w", c.dir, err)
	}
	var infos []ContainerInfo
	for _, part := range parts {
		for f := range fieldsOf(part) {
			if f.tag == gmTagEntry {
				infos = append(infos, parseContainer(f.data))
			}
		}
	}
	return infos, nil
}

func parseContainer(fields []byte) ContainerInfo {
	var info ContainerInfo
	for f := range fieldsOf(fields) {
		switch f.tag {
		case gmTagContainer:
			info.ID = id.Container(f.text())
		case gmTagState:
			info.State = State(f.number())
		case gmTagPid:
			info.PID = int(f.number())
		case gmTagLogLost:
			info.LogLost = f.number()
		case gmTagExitCode:
			info.Exit.Code = int(f.number())
		case gmTagSignal:
			info.Exit.Signal = int(f.number())
		case gmTagOomKilled:
			info.Exit.OOMKilled = f.number() != 0
		case gmTagFinished:
			info.Exit.FinishedAt = time.Unix(0, int64(f.number()))
		}
	}
	if info.State == Exited {
		info.Exit.LogLost = info.LogLost
	}
	return info
}
