package server

import (
	"context"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/internal/errkind"
	"github.com/gantry-cri/gantry/internal/sandbox"
)

// RunPodSandbox makes and starts a pod. A retry joins the call in flight.
func (s *Server) RunPodSandbox(ctx context.Context, req *runtimeapi.RunPodSandboxRequest) (*runtimeapi.RunPodSandboxResponse, error) {
	pod, err := s.opts.Pods.Run(ctx, req.GetConfig(), req.GetRuntimeHandler())
	if err != nil {
		return nil, err
	}
	return &runtimeapi.RunPodSandboxResponse{PodSandboxId: string(pod)}, nil
}

// StopPodSandbox ends everything that runs in a pod. An unknown pod is no error.
func (s *Server) StopPodSandbox(ctx context.Context, req *runtimeapi.StopPodSandboxRequest) (*runtimeapi.StopPodSandboxResponse, error) {
	resp := &runtimeapi.StopPodSandboxResponse{}
	p, err := s.opts.Pods.Find(req.GetPodSandboxId())
	if err != nil {
		return resp, unlessNotFound(err)
	}
	return resp, s.opts.Pods.Stop(ctx, p)
}

// RemovePodSandbox removes a pod with its containers. An unknown pod is no error.
func (s *Server) RemovePodSandbox(ctx context.Context, req *runtimeapi.RemovePodSandboxRequest) (*runtimeapi.RemovePodSandboxResponse, error) {
	resp := &runtimeapi.RemovePodSandboxResponse{}
	p, err := s.opts.Pods.Find(req.GetPodSandboxId())
	if err != nil {
		return resp, unlessNotFound(err)
	}
	return resp, s.opts.Pods.Remove(ctx, p)
}

// PodSandboxStatus reports one pod, with the status of its containers.
func (s *Server) PodSandboxStatus(_ context.Context, req *runtimeapi.PodSandboxStatusRequest) (*runtimeapi.PodSandboxStatusResponse, error) {
	p, err := s.opts.Pods.Find(req.GetPodSandboxId())
	if err != nil {
		return nil, err
	}
	resp := &runtimeapi.PodSandboxStatusResponse{Status: podStatus(p), Timestamp: time.Now().UnixNano()}
	for _, c := range s.opts.Containers.OfPod(p.ID()) {
		resp.ContainersStatuses = append(resp.ContainersStatuses, containerStatus(c))
	}
	if req.GetVerbose() {
		if resp.Info, err = podInfo(p); err != nil {
			return nil, err
		}
	}
	return resp, nil
}

// ListPodSandbox lists pods from memory; it never waits.
func (s *Server) ListPodSandbox(_ context.Context, req *runtimeapi.ListPodSandboxRequest) (*runtimeapi.ListPodSandboxResponse, error) {
	resp := &runtimeapi.ListPodSandboxResponse{}
	for _, p := range s.opts.Pods.List(podFilter(req.GetFilter())) {
		resp.Items = append(resp.Items, pod(p))
	}
	return resp, nil
}

func podFilter(f *runtimeapi.PodSandboxFilter) func(*sandbox.Pod) bool {
	return func(p *sandbox.Pod) bool {
		return hasPrefix(string(p.ID()), f.GetId()) &&
			(f.GetState() == nil || podState(p.Status()) == f.GetState().GetState()) &&
			matches(p.Config().GetLabels(), f.GetLabelSelector())
	}
}

func podState(st sandbox.Status) runtimeapi.PodSandboxState {
	if st.State == sandbox.Ready {
		return runtimeapi.PodSandboxState_SANDBOX_READY
	}
	return runtimeapi.PodSandboxState_SANDBOX_NOTREADY
}

func pod(p *sandbox.Pod) *runtimeapi.PodSandbox {
	return &runtimeapi.PodSandbox{
		Id:             string(p.ID()),
		Metadata:       p.Config().GetMetadata(),
		State:          podState(p.Status()),
		CreatedAt:      p.Record.CreatedAt.UnixNano(),
		Labels:         p.Config().GetLabels(),
		Annotations:    p.Config().GetAnnotations(),
		RuntimeHandler: p.Record.Handler,
	}
}

func podStatus(p *sandbox.Pod) *runtimeapi.PodSandboxStatus { return podStatusAt(p, p.Status()) }

// podStatusAt is what podStatus was when the pod's state was st.
func podStatusAt(p *sandbox.Pod, st sandbox.Status) *runtimeapi.PodSandboxStatus {
	out := &runtimeapi.PodSandboxStatus{
		Id:             string(p.ID()),
		Metadata:       p.Config().GetMetadata(),
		State:          podState(st),
		CreatedAt:      p.Record.CreatedAt.UnixNano(),
		Network:        &runtimeapi.PodSandboxNetworkStatus{},
		Linux:          &runtimeapi.LinuxPodSandboxStatus{Namespaces: &runtimeapi.Namespace{Options: namespaceOptions(p)}},
		Labels:         p.Config().GetLabels(),
		Annotations:    p.Config().GetAnnotations(),
		RuntimeHandler: p.Record.Handler,
	}
	for i, ip := range st.IPs {
		if i == 0 {
			out.Network.Ip = ip.String()
			continue
		}
		out.Network.AdditionalIps = append(out.Network.AdditionalIps, &runtimeapi.PodIP{Ip: ip.String()})
	}
	return out
}

func namespaceOptions(p *sandbox.Pod) *runtimeapi.NamespaceOption {
	if o := p.Config().GetLinux().GetSecurityContext().GetNamespaceOptions(); o != nil {
		return o
	}
	return &runtimeapi.NamespaceOption{}
}

// unlessNotFound is for the calls that CRI wants idempotent: what does not
// exist is stopped and removed already.
func unlessNotFound(err error) error {
	if errkind.Of(err) == errkind.NotFound {
		return nil
	}
	return err
}
