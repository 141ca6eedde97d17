package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/internal/cgroup"
)

// sleepArgs is what every container runs: one small process. No other process
// has these arguments.
func sleepArgs() []string { return []string{"sleep", "7654321"} }

// A pod is one pod of a server with one container.
type pod struct {
	server    *server
	sandbox   *runtimeapi.PodSandboxConfig
	container *runtimeapi.ContainerConfig
	cgroup    string
	id        string
	ctr       string
}

// newPod describes a pod, and makes what the kubelet makes before a pod: its
// cgroup and its log directory.
func (s *server) newPod(name string) (*pod, error) {
	p := &pod{server: s, cgroup: s.cgroup + "/pods/" + name}
	profile := &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}
	p.sandbox = &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: name, Namespace: "bench", Uid: "uid-" + name},
		Hostname:     name,
		LogDirectory: filepath.Join(s.dir, "logs", name),
		DnsConfig:    &runtimeapi.DNSConfig{Servers: []string{"10.96.0.10"}, Searches: []string{"bench.svc.cluster.local"}},
		Labels:       map[string]string{"app": "bench"},
		Linux: &runtimeapi.LinuxPodSandboxConfig{
			CgroupParent: p.cgroup,
			SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{
				Seccomp:          profile,
				NamespaceOptions: &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER},
			},
		},
	}
	p.container = &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: "main"},
		Image:    &runtimeapi.ImageSpec{Image: busyboxImage, UserSpecifiedImage: busyboxImage},
		Command:  sleepArgs(),
		LogPath:  "main/0.log",
		Labels:   map[string]string{"app": "bench"},
		Linux: &runtimeapi.LinuxContainerConfig{
			Resources: &runtimeapi.LinuxContainerResources{
				CpuShares: containerShares, CpuPeriod: containerPeriod, CpuQuota: containerQuota,
				MemoryLimitInBytes: containerMemory, OomScoreAdj: containerOOMScore,
			},
			SecurityContext: &runtimeapi.LinuxContainerSecurityContext{
				Seccomp:          profile,
				NamespaceOptions: &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER},
				MaskedPaths:      maskedPaths(),
				ReadonlyPaths:    readonlyPaths(),
			},
		},
	}
	if err := cgroup.Create(s.node, p.cgroup); err != nil {
		return nil, err
	}
	return p, os.MkdirAll(filepath.Join(p.sandbox.LogDirectory, "main"), 0o755)
}

// upTimes are the durations of the three calls that bring a pod up.
type upTimes struct{ run, create, start time.Duration }

func (t upTimes) total() time.Duration { return t.run + t.create + t.start }

// up runs the pod and starts its container.
func (p *pod) up(ctx context.Context) (upTimes, error) {
	var t upTimes
	var err error
	run := &runtimeapi.RunPodSandboxRequest{Config: p.sandbox}
	t.run, err = timed(ctx, p.server, func(ctx context.Context) error {
		resp, err := p.server.runtime.RunPodSandbox(ctx, run)
		p.id = resp.GetPodSandboxId()
		return err
	})
	if err != nil {
		return t, fmt.Errorf("%s: RunPodSandbox: %w", p.server.name, err)
	}
	create := &runtimeapi.CreateContainerRequest{PodSandboxId: p.id, Config: p.container, SandboxConfig: p.sandbox}
	t.create, err = timed(ctx, p.server, func(ctx context.Context) error {
		resp, err := p.server.runtime.CreateContainer(ctx, create)
		p.ctr = resp.GetContainerId()
		return err
	})
	if err != nil {
		return t, fmt.Errorf("%s: CreateContainer: %w", p.server.name, err)
	}
	t.start, err = call(ctx, p.server, p.server.runtime.StartContainer, &runtimeapi.StartContainerRequest{ContainerId: p.ctr})
	return t, err
}

// down stops and removes the pod. What the kubelet removes after a pod is not
// part of the returned duration.
func (p *pod) down(ctx context.Context) (time.Duration, error) {
	stop, err := call(ctx, p.server, p.server.runtime.StopPodSandbox, &runtimeapi.StopPodSandboxRequest{PodSandboxId: p.id})
	if err != nil {
		return stop, err
	}
	remove, err := call(ctx, p.server, p.server.runtime.RemovePodSandbox, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: p.id})
	return stop + remove, err
}

// forget removes what newPod made.
func (p *pod) forget(ctx context.Context) error { return cgroup.Remove(ctx, p.server.node, p.cgroup) }

// exec runs true in the container.
func (p *pod) exec(ctx context.Context) (time.Duration, error) {
	return timed(ctx, p.server, func(ctx context.Context) error {
		resp, err := p.server.runtime.ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: p.ctr, Cmd: []string{"true"}, Timeout: 30})
		if err == nil && resp.ExitCode != 0 {
			err = fmt.Errorf("exit code %d: %s", resp.ExitCode, resp.Stderr)
		}
		if err != nil {
			err = fmt.Errorf("%s: ExecSync: %w", p.server.name, err)
		}
		return err
	})
}

// call times one call; its error names the server and the request.
func call[Request, Response any](ctx context.Context, s *server, method func(context.Context, *Request, ...grpc.CallOption) (*Response, error), request *Request, opts ...grpc.CallOption) (time.Duration, error) {
	return timed(ctx, s, func(ctx context.Context) error {
		_, err := method(ctx, request, opts...)
		if err != nil {
			err = fmt.Errorf("%s: %T: %w", s.name, request, err)
		}
		return err
	})
}

// timed times f, which gets a context with the limit of one call.
func timed(ctx context.Context, s *server, f func(context.Context) error) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, s.limit)
	defer cancel()
	begin := time.Now()
	err := f(ctx)
	return time.Since(begin), err
}

// pull pulls an image.
func (s *server) pull(ctx context.Context, image string) (time.Duration, error) {
	return timed(ctx, s, func(ctx context.Context) error {
		_, err := s.images.PullImage(ctx, &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: image}})
		if err != nil {
			err = fmt.Errorf("%s: PullImage %s: %w", s.name, image, err)
		}
		return err
	})
}
