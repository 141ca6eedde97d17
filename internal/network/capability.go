package network

import (
	"encoding/json"
	"fmt"
	"math"
	"net/netip"
	"strings"

	"github.com/gantry-cri/gantry/internal/errkind"
)

// The annotations with a pod's bandwidth limits, in bits per second
// (https://kubernetes.io/docs/concepts/extend-kubernetes/compute-storage-net/network-plugins/#support-traffic-shaping).
const (
	ingressAnnotation = "kubernetes.io/ingress-bandwidth"
	egressAnnotation  = "kubernetes.io/egress-bandwidth"
)

// unlimitedBurst is the burst, in bits, of a limit that names none.
const unlimitedBurst = math.MaxInt32

// portMap is an element of the portMappings capability
// (https://www.cni.dev/docs/conventions/).
type portMap struct {
	HostPort      int    `json:"hostPort"`
	ContainerPort int    `json:"containerPort"`
	Protocol      string `json:"protocol"`
	HostIP        string `json:"hostIP,omitempty"`
}

// bandwidth is the bandwidth capability.
type bandwidth struct {
	IngressRate  uint64 `json:"ingressRate,omitempty"`
	IngressBurst uint64 `json:"ingressBurst,omitempty"`
	EgressRate   uint64 `json:"egressRate,omitempty"`
	EgressBurst  uint64 `json:"egressBurst,omitempty"`
}

// capabilities are the capability arguments for a pod, by name. A plugin
// receives those that its configuration asks for. The error is of kind Invalid.
func capabilities(pod Pod) (map[string]json.RawMessage, error) {
	ports, err := portMaps(pod.Ports)
	if err != nil {
		return nil, err
	}
	limits, err := bandwidthOf(pod.Annotations)
	if err != nil {
		return nil, err
	}
	values := map[string]any{}
	if len(ports) > 0 {
		values["portMappings"] = ports
	}
	if limits != (bandwidth{}) {
		values["bandwidth"] = limits
	}
	if len(pod.DNS.Servers)+len(pod.DNS.Searches)+len(pod.DNS.Options) > 0 {
		values["dns"] = pod.DNS
	}
	if pod.CgroupParent != "" {
		values["cgroupPath"] = pod.CgroupParent
	}
	if len(pod.Annotations) > 0 {
		values["io.kubernetes.cri.pod-annotations"] = pod.Annotations
	}
	out := make(map[string]json.RawMessage, len(values))
	for name, v := range values {
		if out[name], err = json.Marshal(v); err != nil {
			return nil, fmt.Errorf("encode CNI capability %s: %w", name, err)
		}
	}
	return out, nil
}

func portMaps(ports []PortMapping) ([]portMap, error) {
	var out []portMap
	for _, p := range ports {
		if p.HostPort == 0 || p.ContainerPort == 0 {
			continue
		}
		m := portMap{p.HostPort, p.ContainerPort, strings.ToLower(p.Protocol), p.HostIP}
		if m.Protocol == "" {
			m.Protocol = "tcp"
		}
		if err := m.check(); err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	return out, nil
}

func (m portMap) check() error {
	for _, port := range []int{m.HostPort, m.ContainerPort} {
		if port < 1 || port > math.MaxUint16 {
			return errkind.Errorf(errkind.Invalid, "port mapping: %d is no port", port)
		}
	}
	switch m.Protocol {
	case "tcp", "udp", "sctp":
	default:
		return errkind.Errorf(errkind.Invalid, "port mapping: protocol %q is none of tcp, udp, sctp", m.Protocol)
	}
	if m.HostIP != "" {
		if _, err := netip.ParseAddr(m.HostIP); err != nil {
			return errkind.Errorf(errkind.Invalid, "port mapping: host IP: %w", err)
		}
	}
	return nil
}

func bandwidthOf(annotations map[string]string) (bandwidth, error) {
	var b bandwidth
	for _, limit := range []struct {
		annotation  string
		rate, burst *uint64
	}{
		{ingressAnnotation, &b.IngressRate, &b.IngressBurst},
		{egressAnnotation, &b.EgressRate, &b.EgressBurst},
	} {
		text, ok := annotations[limit.annotation]
		if !ok {
			continue
		}
		rate, err := parseRate(text)
		if err != nil {
			return bandwidth{}, errkind.Errorf(errkind.Invalid, "annotation %s: %w", limit.annotation, err)
		}
		*limit.rate, *limit.burst = rate, unlimitedBurst
	}
	return b, nil
}
