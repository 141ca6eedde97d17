package server

import (
	"context"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/internal/errkind"
)

// UpdateContainerResources changes limits of a container that was created or
// runs; what the request leaves at zero stays. No annotation means anything to
// Gantry here: they are accepted and change nothing.
func (s *Server) UpdateContainerResources(ctx context.Context, req *runtimeapi.UpdateContainerResourcesRequest) (*runtimeapi.UpdateContainerResourcesResponse, error) {
	c, err := s.opts.Containers.Find(req.GetContainerId())
	if err != nil {
		return nil, err
	}
	switch {
	case req.GetWindows() != nil:
		return nil, errkind.Errorf(errkind.Invalid, "update container %s: resources of Windows on a Linux node", c.ID())
	case req.GetLinux() == nil && len(req.GetAnnotations()) == 0:
		return nil, errkind.Errorf(errkind.Invalid, "update container %s: no resources given", c.ID())
	}
	if err := s.opts.Containers.Update(ctx, c, req.GetLinux()); err != nil {
		return nil, err
	}
	return &runtimeapi.UpdateContainerResourcesResponse{}, nil
}

// UpdatePodSandboxResources takes note of a pod's overhead and of the sum of
// its containers' resources. The pod's cgroup is the kubelet's, which sets its
// limits itself: see https://kep.k8s.io/1287.
func (s *Server) UpdatePodSandboxResources(_ context.Context, req *runtimeapi.UpdatePodSandboxResourcesRequest) (*runtimeapi.UpdatePodSandboxResourcesResponse, error) {
	p, err := s.opts.Pods.Find(req.GetPodSandboxId())
	if err != nil {
		return nil, err
	}
	if err := p.UpdateResources(req.GetOverhead(), req.GetResources()); err != nil {
		return nil, err
	}
	return &runtimeapi.UpdatePodSandboxResourcesResponse{}, nil
}
