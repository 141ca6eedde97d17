package container

import (
	"fmt"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/internal/id"
	"github.com/gantry-cri/gantry/internal/oci"
	"github.com/gantry-cri/gantry/internal/statefile"
)

// A container's directory, <pod dir>/containers/<id>/, holds
//
//	container.json  the Record: written before any other side effect of Create,
//	                it is the intent that recovery undoes while state.json is absent
//	state.json      the phase: written at the end of Create, before and after Start
//	resources.json  the limits since the first update of them, and an update under way
//	exit.json       the exit record, written by the monitor
//	config.json     the OCI spec; this directory is the bundle
//	pid             the init's PID, written by the runtime
//	rootfs/         where the runtime finds the root filesystem
//	volumes/<n>/    where it finds the image of mount n
const (
	recordFile   = "container.json"
	stateFile    = "state.json"
	limitsFile   = "resources.json"
	exitFile     = "exit.json"
	pidFile      = "pid"
	rootfsDir    = "rootfs"
	volumesDir   = "volumes"
	recordVer    = 1
	stateVer     = 1
	limitsVer    = 1
	ContainersIn = "containers" // the directory of a pod that holds its containers'
)

// Record is what a container was created with. It pins the runtime, so that a
// change of the configuration never strands a container.
type Record struct {
	ID        id.Container                                         `json:"id"`
	Pod       id.Pod                                               `json:"pod"`
	CreatedAt time.Time                                            `json:"created_at"`
	Config    statefile.Proto[*runtimeapi.ContainerConfig]         `json:"config"`
	ImageID   string                                               `json:"image_id"`  // sha256:<64 hex>
	ImageRef  string                                               `json:"image_ref"` // a repo digest, or the id where there is none
	User      oci.User                                             `json:"user"`
	Cgroup    string                                               `json:"cgroup"`
	LogPath   string                                               `json:"log_path,omitempty"` // absolute; "" logs nothing
	StopSig   unix.Signal                                          `json:"stop_signal"`
	Resources statefile.Proto[*runtimeapi.LinuxContainerResources] `json:"resources"` // at creation
	Volumes   []Volume                                             `json:"volumes,omitempty"`
}

// Volume is an image that is mounted in the container.
type Volume struct {
	Mount    int    `json:"mount"`     // the mount's index in the configuration
	ImageID  string `json:"image_id"`  // as of Record
	ImageRef string `json:"image_ref"` // as of Record
}

// phase is what state.json holds.
type phase struct {
	PID       int       `json:"pid"`
	Starting  bool      `json:"starting,omitempty"` // Start has begun; whether the runtime did it is to be asked
	StartedAt time.Time `json:"started_at,omitzero"`
	Reason    string    `json:"reason,omitempty"`
	Message   string    `json:"message,omitempty"`
	Cleaned   bool      `json:"cleaned,omitempty"` // it has ended and the runtime has forgotten it
}

// Dir is the container's directory, which is its bundle.
func (c *Container) Dir() string { return dirOf(c.pod, c.Record.ID) }

func dirOf(pod *Pod, ctr id.Container) string {
	return filepath.Join(pod.Dir, ContainersIn, string(ctr))
}

func (c *Container) writeRecord() error {
	return statefile.Write(filepath.Join(c.Dir(), recordFile), recordVer, c.Record)
}

// phase is what state.json says of the present status, with one change.
func (c *Container) phase(change func(*phase)) phase {
	st := c.Status()
	p := phase{PID: st.PID, StartedAt: st.StartedAt}
	if st.Reason == reasonStartError || st.Reason == reasonMonitorLost {
		p.Reason, p.Message = st.Reason, st.Message
	}
	change(&p)
	return p
}

func (c *Container) writePhase(p phase) error {
	if err := statefile.Write(filepath.Join(c.Dir(), stateFile), stateVer, p); err != nil {
		return fmt.Errorf("record the state of container %s: %w", c.Record.ID, err)
	}
	return nil
}
