package server

import (
	"cmp"
	"context"
	"fmt"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/internal/container"
	"github.com/gantry-cri/gantry/internal/errkind"
	"github.com/gantry-cri/gantry/internal/image"
	"github.com/gantry-cri/gantry/internal/oci"
	"github.com/gantry-cri/gantry/internal/storage"
)

// CreateContainer creates a container in a ready pod. A retry joins the call
// in flight.
func (s *Server) CreateContainer(ctx context.Context, req *runtimeapi.CreateContainerRequest) (*runtimeapi.CreateContainerResponse, error) {
	cfg := req.GetConfig()
	if err := validateContainer(cfg); err != nil {
		return nil, err
	}
	if err := s.checkImageSpec(cfg.GetImage()); err != nil {
		return nil, err
	}
	pod, err := s.opts.Pods.Find(req.GetPodSandboxId())
	if err != nil {
		return nil, err
	}
	namespace := pod.Config().GetMetadata().GetNamespace()
	img, err := s.allowedImage(ctx, cfg.GetImage(), namespace)
	if err != nil {
		return nil, err
	}
	if kind, ok := image.ArtifactType(img); ok {
		return nil, errkind.Errorf(errkind.Invalid, "create container %s: image %s is an artifact (%s): it can be mounted, not run",
			cfg.GetMetadata().GetName(), cfg.GetImage().GetImage(), kind)
	}
	volumes, err := s.imageVolumes(ctx, cfg, namespace)
	if err != nil {
		return nil, err
	}
	ctr, err := s.opts.Pods.CreateContainer(ctx, req.GetPodSandboxId(), container.CreateRequest{
		Config:   cfg,
		Image:    img,
		ImageRef: imageRef(s.opts.Images.CRI(img)),
		Volumes:  volumes,
	})
	if err != nil {
		return nil, err
	}
	return &runtimeapi.CreateContainerResponse{ContainerId: string(ctr)}, nil
}

// allowedImage finds a stored image that pods of the namespace may use. It may
// have been pulled for pods of another.
func (s *Server) allowedImage(ctx context.Context, spec *runtimeapi.ImageSpec, namespace string) (storage.Image, error) {
	img, err := s.opts.Images.Resolve(spec.GetImage())
	if err != nil {
		return storage.Image{}, err
	}
	called := cmp.Or(spec.GetUserSpecifiedImage(), spec.GetImage())
	if err := s.opts.Images.Allow(ctx, img, image.Use{Namespace: namespace, Name: called}); err != nil {
		return storage.Image{}, signatureError(err)
	}
	return img, nil
}

// imageVolumes finds the images that mounts ask for. The kubelet has pulled them.
func (s *Server) imageVolumes(ctx context.Context, cfg *runtimeapi.ContainerConfig, namespace string) ([]container.ImageVolume, error) {
	var volumes []container.ImageVolume
	for i, m := range cfg.GetMounts() {
		if m.GetImage().GetImage() == "" {
			continue
		}
		img, err := s.allowedImage(ctx, m.GetImage(), namespace)
		if err != nil {
			return nil, fmt.Errorf("mount %s: %w", m.GetContainerPath(), err)
		}
		volumes = append(volumes, container.ImageVolume{Mount: i, Image: img, Ref: imageRef(s.opts.Images.CRI(img))})
	}
	return volumes, nil
}

func validateContainer(cfg *runtimeapi.ContainerConfig) error {
	switch {
	case cfg == nil:
		return errkind.Errorf(errkind.Invalid, "create container: no config given")
	case cfg.GetMetadata().GetName() == "":
		return errkind.Errorf(errkind.Invalid, "create container: config.metadata.name is missing")
	case cfg.GetImage().GetImage() == "":
		return errkind.Errorf(errkind.Invalid, "create container %s: config.image.image is missing", cfg.GetMetadata().GetName())
	case cfg.GetWindows() != nil:
		return errkind.Errorf(errkind.Invalid, "create container %s: config.windows is set, and this is a Linux node", cfg.GetMetadata().GetName())
	}
	return nil
}

// imageRef is the digested name of an image, or its id where it has none.
func imageRef(img *runtimeapi.Image) string {
	if d := img.GetRepoDigests(); len(d) > 0 {
		return d[0]
	}
	return img.GetId()
}

// StartContainer starts a created container.
func (s *Server) StartContainer(ctx context.Context, req *runtimeapi.StartContainerRequest) (*runtimeapi.StartContainerResponse, error) {
	if err := s.opts.Containers.Start(ctx, req.GetContainerId()); err != nil {
		return nil, err
	}
	return &runtimeapi.StartContainerResponse{}, nil
}

// StopContainer stops a container within a grace period, in seconds. An
// unknown container is no error.
func (s *Server) StopContainer(ctx context.Context, req *runtimeapi.StopContainerRequest) (*runtimeapi.StopContainerResponse, error) {
	resp := &runtimeapi.StopContainerResponse{}
	if req.GetTimeout() < 0 {
		return nil, errkind.Errorf(errkind.Invalid, "stop container %s: negative timeout %d", req.GetContainerId(), req.GetTimeout())
	}
	c, err := s.opts.Containers.Find(req.GetContainerId())
	if err != nil {
		return resp, unlessNotFound(err)
	}
	return resp, s.opts.Containers.Stop(ctx, c, seconds(req.GetTimeout()))
}

// RemoveContainer removes a container, killing it first if it runs. An
// unknown container is no error.
func (s *Server) RemoveContainer(ctx context.Context, req *runtimeapi.RemoveContainerRequest) (*runtimeapi.RemoveContainerResponse, error) {
	resp := &runtimeapi.RemoveContainerResponse{}
	c, err := s.opts.Containers.Find(req.GetContainerId())
	if err != nil {
		return resp, unlessNotFound(err)
	}
	return resp, s.opts.Containers.Remove(ctx, c)
}

// ListContainers lists containers from memory; it never waits.
func (s *Server) ListContainers(_ context.Context, req *runtimeapi.ListContainersRequest) (*runtimeapi.ListContainersResponse, error) {
	resp := &runtimeapi.ListContainersResponse{}
	for _, c := range s.opts.Containers.List(containerFilter(req.GetFilter())) {
		resp.Containers = append(resp.Containers, listed(c))
	}
	return resp, nil
}

func containerFilter(f *runtimeapi.ContainerFilter) func(*container.Container) bool {
	return func(c *container.Container) bool {
		return hasPrefix(string(c.ID()), f.GetId()) &&
			hasPrefix(string(c.PodID()), f.GetPodSandboxId()) &&
			(f.GetState() == nil || containerState(c.Status().State) == f.GetState().GetState()) &&
			matches(c.Config().GetLabels(), f.GetLabelSelector())
	}
}

// ContainerStatus reports one container.
func (s *Server) ContainerStatus(_ context.Context, req *runtimeapi.ContainerStatusRequest) (*runtimeapi.ContainerStatusResponse, error) {
	c, err := s.opts.Containers.Find(req.GetContainerId())
	if err != nil {
		return nil, err
	}
	resp := &runtimeapi.ContainerStatusResponse{Status: containerStatus(c)}
	if req.GetVerbose() {
		if resp.Info, err = containerInfo(c); err != nil {
			return nil, err
		}
	}
	return resp, nil
}

// ReopenContainerLog opens a running container's log file anew.
func (s *Server) ReopenContainerLog(ctx context.Context, req *runtimeapi.ReopenContainerLogRequest) (*runtimeapi.ReopenContainerLogResponse, error) {
	c, err := s.opts.Containers.Find(req.GetContainerId())
	if err != nil {
		return nil, err
	}
	return &runtimeapi.ReopenContainerLogResponse{}, c.ReopenLog(ctx)
}

// ExecSync runs a command in a container and returns its output. The timeout
// is in seconds; zero is none.
func (s *Server) ExecSync(ctx context.Context, req *runtimeapi.ExecSyncRequest) (*runtimeapi.ExecSyncResponse, error) {
	if req.GetTimeout() < 0 {
		return nil, errkind.Errorf(errkind.Invalid, "exec in container %s: negative timeout %d", req.GetContainerId(), req.GetTimeout())
	}
	c, err := s.opts.Containers.Find(req.GetContainerId())
	if err != nil {
		return nil, err
	}
	res, err := c.ExecSync(ctx, req.GetCmd(), seconds(req.GetTimeout()))
	if err != nil {
		return nil, err
	}
	stdout, stderr := fitOutputs(res.Stdout, res.Stderr, s.opts.MaxMessageSize-messageSlack)
	return &runtimeapi.ExecSyncResponse{Stdout: stdout, Stderr: stderr, ExitCode: int32(res.ExitCode)}, nil
}

// messageSlack is room in a message for all but the outputs.
const messageSlack = 4096

// fitOutputs cuts two outputs so that both together have no more than max
// bytes: an error that the message is too large would lose all of them. Each
// gets half, and what the other does not need.
func fitOutputs(stdout, stderr []byte, max int) (fitOut, fitErr []byte) {
	if len(stdout)+len(stderr) <= max {
		return stdout, stderr
	}
	half := max / 2
	switch {
	case len(stderr) <= half:
		return oci.CutOutput(stdout, max-len(stderr)), stderr
	case len(stdout) <= half:
		return stdout, oci.CutOutput(stderr, max-len(stdout))
	}
	return oci.CutOutput(stdout, half), oci.CutOutput(stderr, half)
}

// seconds converts a CRI timeout. What a Duration can't hold is the longest one.
func seconds(n int64) time.Duration {
	const most = int64(1<<63-1) / int64(time.Second)
	return time.Duration(min(n, most)) * time.Second
}
