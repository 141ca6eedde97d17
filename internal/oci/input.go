// Package oci speaks to OCI runtimes: it writes the specification of each
// container and runs the runtime's commands.
//
// ContainerSpec and SandboxSpec are pure functions of their input: what must
// be read from the host's files beforehand is gathered by Prepare and
// PrepareSandbox, what must be read from the image by ResolveUser's caller.
package oci

import (
	imgspec "github.com/opencontainers/image-spec/specs-go/v1"
	rspec "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/internal/id"
	"github.com/gantry-cri/gantry/internal/node"
	"github.com/gantry-cri/gantry/internal/selinux"
)

// Host, in place of a namespace's path, means the node's own namespace.
const Host = "host"

// Namespaces says for each kind where a container finds its namespace: the
// path of one to join (/proc/PID/ns/ipc), Host for the node's, "" for a new one.
type Namespaces struct{ Network, IPC, UTS, PID string }

// Abilities are what a runtime on this node can do and others can't.
type Abilities struct {
	RecursiveReadOnly bool // mounts that are read-only with all below them
	IDMappedMounts    bool // mounts with ids of their own
}

// ContainerInput is all that the specification of a container depends on.
type ContainerInput struct {
	ID      id.Container
	PodID   id.Pod
	Config  *runtimeapi.ContainerConfig
	Sandbox *runtimeapi.PodSandboxConfig
	Image   *imgspec.ImageConfig // nil: no entrypoint, no environment
	// ImageName goes into an annotation only.
	ImageName string
	User      User // of ResolveUser
	Node      node.Facts
	Host      HostFacts // of Prepare
	// RootFS is the path of the root file system, absolute or relative to the bundle.
	RootFS string
	Join   Namespaces
	// UserNS is the path of the pod's user namespace, where the sandbox's
	// options give it one.
	UserNS      string
	Can         Abilities
	CgroupsPath string
	// Systemd is true where CgroupsPath has the form slice:prefix:name.
	Systemd bool
	// ResolvConf, Hostname and Hosts are files of the host that are mounted at
	// /etc/resolv.conf, /etc/hostname and /etc/hosts; "" mounts none. A mount
	// of the config at the same place wins.
	ResolvConf, Hostname, Hosts string
	// Shm is mounted at /dev/shm; "" gives the container a tmpfs of its own there.
	Shm string
	// HostnameValue becomes the variable HOSTNAME; "" sets none.
	HostnameValue string
	OCIVersion    string
	// SELinux are the labels of the container, empty on a node without SELinux.
	SELinux selinux.Labels
	// AppArmorDefault is the name of the AppArmor profile of RuntimeDefault.
	AppArmorDefault string
	// PidsLimit bounds the container's processes; not positive: unbounded.
	PidsLimit int64
	// Rlimits are set for the container's process, clamped to what the node
	// allows. Limits not named are inherited.
	Rlimits []rspec.POSIXRlimit
	// Options are those of the runtime's handler.
	Options RuntimeOptions
}

// SandboxInput is all that the specification of a pod's pause container depends on.
type SandboxInput struct {
	ID     id.Pod
	Config *runtimeapi.PodSandboxConfig
	Node   node.Facts
	// Seccomp is the content of the profile, of PrepareSandbox.
	Seccomp []byte
	RootFS  string
	Args    []string // argv of pause
	Env     []string
	Cwd     string // "" is /
	User    User
	// NetNS is the path of the pod's network namespace; Host (or "") is the
	// node's. IPC, PID and user namespace follow from the config's namespace
	// options; the UTS namespace is the node's where the network is.
	NetNS string
	// NewNetNS has the runtime make the network namespace, so that it belongs to
	// the pod's user namespace; NetNS does not count then.
	NewNetNS    bool
	CgroupsPath string
	// Systemd is true where CgroupsPath has the form slice:prefix:name.
	Systemd    bool
	OCIVersion string
	// SELinux are the labels of the pause container, empty on a node without SELinux.
	SELinux selinux.Labels
	// AppArmorDefault is the name of the AppArmor profile of RuntimeDefault.
	AppArmorDefault string
	// Hostname is set in the pod's UTS namespace; "" sets none.
	Hostname string
	// SharedMemory is a directory of the host that stands for the pod's /dev/shm
	// inside a runtime's own sandbox; "" for runtimes that have none.
	SharedMemory string
	// ShmSize is the size of the pod's /dev/shm in bytes; 0 is 64 MiB.
	ShmSize int64
	// Options are those of the runtime's handler.
	Options RuntimeOptions
}

// HostFacts is what a container's specification needs to know of the host's
// files. Prepare gathers it.
type HostFacts struct {
	// Mounts has the real host path of each mount of the config, in its order.
	// That of an image mount is empty until the caller fills it in.
	Mounts []string
	// Devices has the device nodes behind each device of the config, in its
	// order: a directory stands for all device nodes below it.
	Devices [][]rspec.LinuxDevice
	// AllDevices are the nodes of the host's /dev, for a privileged container only.
	AllDevices []rspec.LinuxDevice
	// Seccomp is the content of the profile that the config names (Localhost)
	// or that the daemon is configured with (RuntimeDefault); nil stands for
	// the built-in one.
	Seccomp []byte
}

// User is whom a container's process runs as.
type User struct {
	UID uint32 `json:"uid"`
	GID uint32 `json:"gid"`
	// Groups are all groups of the process, the primary one first, each once.
	Groups []uint32 `json:"groups,omitempty"`
	Home   string   `json:"home,omitempty"` // never empty: "/" if not known
	Name   string   `json:"name,omitempty"` // of /etc/passwd, "" if it has no entry
}
