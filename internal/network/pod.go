package network

import (
	"encoding/json"
	"net/netip"

	"github.com/gantry-cri/gantry/internal/id"
)

// IfName is the name of the one interface that CNI makes in a pod.
const IfName = "eth0"

// Pod is what the plugins are told about a pod.
type Pod struct {
	ID        id.Pod
	Name      string
	Namespace string
	UID       string
	NetNS     string // absolute path of the pod's network namespace, as CreateNetNS made it

	Ports        []PortMapping
	DNS          DNS
	Annotations  map[string]string // bandwidth limits are read from them; plugins that ask get them all
	CgroupParent string            // as a cgroup path; "" if there is none
}

// PortMapping publishes a port of the pod on the node. One without a host port
// or without a container port publishes nothing.
type PortMapping struct {
	HostPort      int
	ContainerPort int
	Protocol      string // "tcp", "udp" or "sctp", in any case; "" means tcp
	HostIP        string // the only address of the node to publish on; "" means all
}

// DNS is the resolver configuration of a pod, for plugins that ask for it.
type DNS struct {
	Servers  []string `json:"servers,omitempty"`
	Searches []string `json:"searches,omitempty"`
	Options  []string `json:"options,omitempty"`
}

// Result is what a network gave to a pod.
type Result struct {
	IPs []netip.Addr    // of the pod's interface, the primary first; never empty
	Raw json.RawMessage // the plugins' own result, as CNI 1.0 JSON
}
