package sandbox

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"path/filepath"
	"time"

	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/internal/cgroup"
	"github.com/gantry-cri/gantry/internal/container"
	"github.com/gantry-cri/gantry/internal/errkind"
	"github.com/gantry-cri/gantry/internal/id"
	"github.com/gantry-cri/gantry/internal/oci"
	"github.com/gantry-cri/gantry/internal/selinux"
	"github.com/gantry-cri/gantry/internal/statefile"
)

// A pod's directory, <run root>/pods/<id>/, holds
//
//	pod.json      the Record: written before any other side effect of Run, it is
//	              the intent that recovery undoes while state.json is absent
//	state.json    the phase: written at the end of Run and by each transition
//	resources.json  the pod's resources, once they were updated
//	monitor.sock  the monitor
//	netns         the network namespace's pin
//	etc/          hosts, hostname and resolv.conf, bind-mounted into containers
//	shm/          where the monitor shows the pod's /dev/shm to the runtime
//	bundle/       the pause container's
//	exit.json     the pause container's exit record
//	pid           the pause container's PID
//	containers/   one directory per container, see package container
const (
	recordFile    = "pod.json"
	stateFile     = "state.json"
	resourcesFile = "resources.json"
	netnsFile     = "netns"
	etcDir        = "etc"
	shmDir        = "shm"
	bundleDir     = "bundle"
	rootfsDir     = "rootfs" // in the bundle, for a pause image
	exitFile      = "exit.json"
	pidFile       = "pid"
	recordVer     = 1
	stateVer      = 1
	resourcesVer  = 1
)

// Record is what a pod was created with. It pins the runtime, so that a change
// of the configuration never strands a pod.
type Record struct {
	ID           id.Pod                                        `json:"id"`
	CreatedAt    time.Time                                     `json:"created_at"`
	Config       statefile.Proto[*runtimeapi.PodSandboxConfig] `json:"config"`
	Handler      string                                        `json:"handler"` // as asked for; "" is the default
	Runtime      RuntimePin                                    `json:"runtime"`
	Program      string                                        `json:"program"`        // what the runtime's binary called itself (runc)
	CgroupParent string                                        `json:"cgroup_parent"`  // cgroup path of the pod
	OwnsCgroup   bool                                          `json:"owns_cgroup"`    // Gantry chose the parent, and removes it
	Cgroups      cgroup.Manager                                `json:"cgroup_manager"` // who makes the pod's cgroups
	SELinux      selinux.Labels                                `json:"selinux,omitzero"`
	Hostname     string                                        `json:"hostname"`
	PauseImage   string                                        `json:"pause_image,omitempty"` // image id; "" is the built-in pause
}

// RuntimePin names the OCI runtime of a pod for ever.
type RuntimePin struct {
	Name string `json:"name"`
	Path string `json:"path"`
	Root string `json:"root"`
	oci.RuntimeOptions
}

func pinOf(rt *oci.Runtime) RuntimePin {
	return RuntimePin{Name: rt.Handler(), Path: rt.Path(), Root: rt.Root(), RuntimeOptions: rt.Options()}
}

// key tells pins apart.
func (p RuntimePin) key() string {
	text, err := json.Marshal(p)
	if err != nil {
		panic(err) // strings and lists of them: it can't fail
	}
	return string(text)
}

// phase is what state.json holds.
type phase struct {
	State    State        `json:"state"`
	PausePID int          `json:"pause_pid,omitempty"`
	IPs      []netip.Addr `json:"ips,omitempty"`
	Reason   string       `json:"reason,omitempty"`
}

func (p *Pod) writePhase(st Status) error {
	if err := statefile.Write(filepath.Join(p.dir, stateFile), stateVer, phase(st)); err != nil {
		return fmt.Errorf("record the state of pod %s: %w", p.Record.ID, err)
	}
	return nil
}

// Identity is what the kubelet means by "the same pod": a retry of
// RunPodSandbox has the same one.
type Identity struct {
	Name, Namespace, UID string
	Attempt              uint32
}

func (i Identity) String() string {
	return fmt.Sprintf("%s/%s (uid %q, attempt %d)", i.Namespace, i.Name, i.UID, i.Attempt)
}

// Identity is the pod's.
func (r *Record) Identity() Identity { return identityOf(r.Config.Message) }

func identityOf(cfg *runtimeapi.PodSandboxConfig) Identity {
	md := cfg.GetMetadata()
	return Identity{md.GetName(), md.GetNamespace(), md.GetUid(), md.GetAttempt()}
}

// hostNetwork reports whether cfg asks for the node's network namespace.
func hostNetwork(cfg *runtimeapi.PodSandboxConfig) bool {
	return namespaces(cfg).GetNetwork() == runtimeapi.NamespaceMode_NODE
}

func namespaces(cfg *runtimeapi.PodSandboxConfig) *runtimeapi.NamespaceOption {
	return cfg.GetLinux().GetSecurityContext().GetNamespaceOptions()
}

// sameRequest refuses a retry that asks for something else than the first call.
func (p *Pod) sameRequest(cfg *runtimeapi.PodSandboxConfig, handler string) error {
	switch {
	case p.Status().State != Ready:
		return errkind.Errorf(errkind.Exists, "pod %s exists as %s and is %s: remove it, or count the attempt up",
			p.Record.Identity(), p.Record.ID, p.Status().State)
	case p.Record.Handler != handler || !proto.Equal(p.Config(), cfg):
		return errkind.Errorf(errkind.Exists, "pod %s exists as %s with another configuration: remove it, or count the attempt up",
			p.Record.Identity(), p.Record.ID)
	}
	return nil
}

// containersDir is where the pod's containers have their directories.
func (p *Pod) containersDir() string { return filepath.Join(p.dir, container.ContainersIn) }
