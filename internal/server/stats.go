package server

import (
	"context"
	"slices"

	"google.golang.org/grpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/internal/container"
	"github.com/gantry-cri/gantry/internal/sandbox"
)

// ContainerStats reports one container's usage. One that has exited has none
// but the size of its writable layer.
func (s *Server) ContainerStats(_ context.Context, req *runtimeapi.ContainerStatsRequest) (*runtimeapi.ContainerStatsResponse, error) {
	c, err := s.opts.Containers.Find(req.GetContainerId())
	if err != nil {
		return nil, err
	}
	m := measuredContainer(c)
	return &runtimeapi.ContainerStatsResponse{Stats: s.opts.Stats.Container(&m)}, nil
}

// ListContainerStats reports the containers that have not exited.
func (s *Server) ListContainerStats(_ context.Context, req *runtimeapi.ListContainerStatsRequest) (*runtimeapi.ListContainerStatsResponse, error) {
	return &runtimeapi.ListContainerStatsResponse{Stats: s.containerStats(req.GetFilter())}, nil
}

// StreamContainerStats is ListContainerStats in as many messages as it takes.
func (s *Server) StreamContainerStats(req *runtimeapi.StreamContainerStatsRequest, out grpc.ServerStreamingServer[runtimeapi.StreamContainerStatsResponse]) error {
	return sendBatches(slices.Values(s.containerStats(req.GetFilter())), s.batchSize(), func(batch []*runtimeapi.ContainerStats) error {
		return out.Send(&runtimeapi.StreamContainerStatsResponse{ContainerStats: batch})
	})
}

func (s *Server) containerStats(f *runtimeapi.ContainerStatsFilter) []*runtimeapi.ContainerStats {
	return s.opts.Stats.Containers(measuredContainers(s.opts.Containers.List(func(c *container.Container) bool {
		return hasPrefix(string(c.ID()), f.GetId()) &&
			hasPrefix(string(c.PodID()), f.GetPodSandboxId()) &&
			matches(c.Config().GetLabels(), f.GetLabelSelector())
	})))
}

// PodSandboxStats reports one pod's usage, with that of its containers. A
// stopped one has none.
func (s *Server) PodSandboxStats(_ context.Context, req *runtimeapi.PodSandboxStatsRequest) (*runtimeapi.PodSandboxStatsResponse, error) {
	p, err := s.opts.Pods.Find(req.GetPodSandboxId())
	if err != nil {
		return nil, err
	}
	m := measuredPods(s.opts.Pods, s.opts.Containers, func(other *sandbox.Pod) bool { return other == p })
	if len(m) == 0 {
		return &runtimeapi.PodSandboxStatsResponse{Stats: &runtimeapi.PodSandboxStats{
			Attributes: podAttributes(p), Linux: &runtimeapi.LinuxPodSandboxStats{},
		}}, nil
	}
	return &runtimeapi.PodSandboxStatsResponse{Stats: s.opts.Stats.Pod(&m[0])}, nil
}

// ListPodSandboxStats reports the pods that are not stopped.
func (s *Server) ListPodSandboxStats(_ context.Context, req *runtimeapi.ListPodSandboxStatsRequest) (*runtimeapi.ListPodSandboxStatsResponse, error) {
	return &runtimeapi.ListPodSandboxStatsResponse{Stats: s.podStats(req.GetFilter())}, nil
}

// StreamPodSandboxStats is ListPodSandboxStats in as many messages as it takes.
func (s *Server) StreamPodSandboxStats(req *runtimeapi.StreamPodSandboxStatsRequest, out grpc.ServerStreamingServer[runtimeapi.StreamPodSandboxStatsResponse]) error {
	return sendBatches(slices.Values(s.podStats(req.GetFilter())), s.batchSize(), func(batch []*runtimeapi.PodSandboxStats) error {
		return out.Send(&runtimeapi.StreamPodSandboxStatsResponse{PodSandboxStats: batch})
	})
}

func (s *Server) podStats(f *runtimeapi.PodSandboxStatsFilter) []*runtimeapi.PodSandboxStats {
	return s.opts.Stats.Pods(measuredPods(s.opts.Pods, s.opts.Containers, func(p *sandbox.Pod) bool {
		return hasPrefix(string(p.ID()), f.GetId()) && matches(p.Config().GetLabels(), f.GetLabelSelector())
	}))
}

// ListMetricDescriptors describes every metric that ListPodSandboxMetrics can tell.
func (s *Server) ListMetricDescriptors(context.Context, *runtimeapi.ListMetricDescriptorsRequest) (*runtimeapi.ListMetricDescriptorsResponse, error) {
	return &runtimeapi.ListMetricDescriptorsResponse{Descriptors: s.opts.Stats.Descriptors()}, nil
}

// ListPodSandboxMetrics tells the metrics of all pods that are not stopped.
func (s *Server) ListPodSandboxMetrics(context.Context, *runtimeapi.ListPodSandboxMetricsRequest) (*runtimeapi.ListPodSandboxMetricsResponse, error) {
	return &runtimeapi.ListPodSandboxMetricsResponse{PodMetrics: s.podMetrics()}, nil
}

// StreamPodSandboxMetrics is ListPodSandboxMetrics in as many messages as it takes.
func (s *Server) StreamPodSandboxMetrics(_ *runtimeapi.StreamPodSandboxMetricsRequest, out grpc.ServerStreamingServer[runtimeapi.StreamPodSandboxMetricsResponse]) error {
	return sendBatches(slices.Values(s.podMetrics()), s.batchSize(), func(batch []*runtimeapi.PodSandboxMetrics) error {
		return out.Send(&runtimeapi.StreamPodSandboxMetricsResponse{PodSandboxMetrics: batch})
	})
}

func (s *Server) podMetrics() []*runtimeapi.PodSandboxMetrics {
	return s.opts.Stats.Metrics(measuredPods(s.opts.Pods, s.opts.Containers, nil))
}
