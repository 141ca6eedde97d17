package server

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/internal/oci"
)

// Version reports the names and versions that the kubelet logs and compares.
func (s *Server) Version(context.Context, *runtimeapi.VersionRequest) (*runtimeapi.VersionResponse, error) {
	return &runtimeapi.VersionResponse{
		Version:           "0.1.0", // the kubelet's word for the first stable form of this message
		RuntimeName:       "gantry",
		RuntimeVersion:    s.opts.Version,
		RuntimeApiVersion: "v1",
	}, nil
}

// Status reports the conditions RuntimeReady and NetworkReady, the handlers
// and what they can do.
func (s *Server) Status(_ context.Context, req *runtimeapi.StatusRequest) (*runtimeapi.StatusResponse, error) {
	network := &runtimeapi.RuntimeCondition{Type: runtimeapi.NetworkReady, Status: true}
	if err := s.opts.Network.Ready(); err != nil {
		network.Status, network.Reason, network.Message = false, "NetworkPluginNotReady", err.Error()
	}
	runtime := &runtimeapi.RuntimeCondition{Type: runtimeapi.RuntimeReady, Status: true}
	if err := s.opts.Pods.DefaultRuntime().Problem(); err != nil {
		runtime.Status, runtime.Reason, runtime.Message = false, "DefaultRuntimeNotUsable", err.Error()
	}
	resp := &runtimeapi.StatusResponse{
		Status:          &runtimeapi.RuntimeStatus{Conditions: []*runtimeapi.RuntimeCondition{runtime, network}},
		RuntimeHandlers: s.handlers(),
		Features: &runtimeapi.RuntimeFeatures{
			SupplementalGroupsPolicy:  true,
			MountOptions:              true,
			UserNamespacesHostNetwork: s.opts.Pods.UserNamespaces(s.opts.Pods.DefaultRuntime()) == nil,
		},
	}
	if req.GetVerbose() {
		info, err := s.verboseStatus()
		if err != nil {
			return nil, err
		}
		resp.Info = info
	}
	return resp, nil
}

// handlers lists the default handler under the empty name, then each by its own.
func (s *Server) handlers() []*runtimeapi.RuntimeHandler {
	runtimes := s.opts.Pods.Runtimes()
	out := []*runtimeapi.RuntimeHandler{s.handler("", s.opts.Pods.DefaultRuntime())}
	for _, name := range slices.Sorted(maps.Keys(runtimes)) {
		out = append(out, s.handler(name, runtimes[name]))
	}
	return out
}

func (s *Server) handler(name string, rt *oci.Runtime) *runtimeapi.RuntimeHandler {
	return &runtimeapi.RuntimeHandler{
		Name: name,
		Features: &runtimeapi.RuntimeHandlerFeatures{
			RecursiveReadOnlyMounts: s.opts.Pods.Abilities(rt).RecursiveReadOnly,
			UserNamespaces:          s.opts.Pods.UserNamespaces(rt) == nil,
		},
	}
}

func (s *Server) verboseStatus() (map[string]string, error) {
	type runtimeInfo struct {
		Path       string `json:"path"`
		Root       string `json:"root"`
		Version    string `json:"version"`
		OCIVersion string `json:"ociVersion"`
	}
	runtimes := make(map[string]runtimeInfo)
	for name, rt := range s.opts.Pods.Runtimes() {
		runtimes[name] = runtimeInfo{rt.Path(), rt.Root(), rt.Version(), rt.OCIVersion()}
	}
	info := make(map[string]string)
	for key, v := range map[string]any{"config": s.opts.Config(), "runtimes": runtimes, "problems": s.opts.Problems()} {
		text, err := json.Marshal(v)
		if err != nil {
			return nil, fmt.Errorf("verbose status: %w", err)
		}
		info[key] = string(text)
	}
	return info, nil
}

// RuntimeConfig tells the kubelet which cgroup driver it must use.
func (s *Server) RuntimeConfig(context.Context, *runtimeapi.RuntimeConfigRequest) (*runtimeapi.RuntimeConfigResponse, error) {
	driver := runtimeapi.CgroupDriver_CGROUPFS
	if s.opts.SystemdCgroups {
		driver = runtimeapi.CgroupDriver_SYSTEMD
	}
	return &runtimeapi.RuntimeConfigResponse{Linux: &runtimeapi.LinuxRuntimeConfiguration{CgroupDriver: driver}}, nil
}

// UpdateRuntimeConfig takes the node's pod CIDR. Gantry leaves addresses to
// the CNI configuration, so there is nothing to change; it is logged.
func (s *Server) UpdateRuntimeConfig(_ context.Context, req *runtimeapi.UpdateRuntimeConfigRequest) (*runtimeapi.UpdateRuntimeConfigResponse, error) {
	if cidr := req.GetRuntimeConfig().GetNetworkConfig().GetPodCidr(); cidr != "" {
		s.opts.Log.Info("pod CIDR told by the kubelet; addresses come from the CNI configuration", "cidr", cidr)
	}
	return &runtimeapi.UpdateRuntimeConfigResponse{}, nil
}
