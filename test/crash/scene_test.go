package crash

import (
	"context"
	"os"
	"path/filepath"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/test/testenv"
)

func (s *scene) runPod(ctx context.Context) error {
	resp, err := s.env.Runtime.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: s.config})
	s.pod = resp.GetPodSandboxId()
	return err
}

func (s *scene) createContainer(ctx context.Context) error {
	if err := os.MkdirAll(s.config.LogDirectory, 0o755); err != nil {
		return err
	}
	resp, err := s.env.Runtime.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{
		PodSandboxId: s.pod, Config: s.container, SandboxConfig: s.config,
	})
	s.ctr = resp.GetContainerId()
	return err
}

// startContainer is repeated as the kubelet does: only where the container has
// not started.
func (s *scene) startContainer(ctx context.Context) error {
	status, err := s.env.Runtime.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: s.ctr})
	if err != nil || status.GetStatus().GetState() == runtimeapi.ContainerState_CONTAINER_RUNNING {
		return err
	}
	_, err = s.env.Runtime.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: s.ctr})
	return err
}

func (s *scene) update(ctx context.Context) error {
	_, err := s.env.Runtime.UpdateContainerResources(ctx, &runtimeapi.UpdateContainerResourcesRequest{
		ContainerId: s.ctr, Linux: &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 64 << 20, CpuShares: 512, CpuQuota: 50000, CpuPeriod: 100000},
	})
	return err
}

func (s *scene) reopen(ctx context.Context) error {
	_, err := s.env.Runtime.ReopenContainerLog(ctx, &runtimeapi.ReopenContainerLogRequest{ContainerId: s.ctr})
	return err
}

func (s *scene) stopContainer(ctx context.Context) error {
	_, err := s.env.Runtime.StopContainer(ctx, &runtimeapi.StopContainerRequest{ContainerId: s.ctr, Timeout: 20})
	return err
}

func (s *scene) removeContainer(ctx context.Context) error {
	_, err := s.env.Runtime.RemoveContainer(ctx, &runtimeapi.RemoveContainerRequest{ContainerId: s.ctr})
	return err
}

func (s *scene) stopPod(ctx context.Context) error {
	_, err := s.env.Runtime.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: s.pod})
	return err
}

func (s *scene) removePod(ctx context.Context) error {
	_, err := s.env.Runtime.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: s.pod})
	return err
}

func (s *scene) pull(ctx context.Context) error {
	_, err := s.env.Images.PullImage(ctx, &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: testenv.Busybox}})
	return err
}

func (s *scene) havePod() { s.pod = s.env.RunPod(s.config) }

func (s *scene) create() { s.ctr = s.env.Create(s.pod, s.container, s.config) }

func (s *scene) start() {
	s.env.Start(s.ctr)
	s.ready()
}

// ready waits until the container would heed a signal.
func (s *scene) ready() {
	s.env.WaitLog(filepath.Join(s.config.LogDirectory, s.container.LogPath), "ready")
}

func (s *scene) haveCreated() {
	s.havePod()
	s.create()
}

func (s *scene) haveStarted() {
	s.haveCreated()
	s.start()
}

func (s *scene) haveNoImage() {
	_, err := s.env.Images.RemoveImage(s.env.Context(), &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: testenv.Busybox}})
	if err != nil {
		s.t.Fatal(err)
	}
}

// works checks that there is one pod with one running container that can be
// used, and that it ends with the exit code that it has.
func (s *scene) works() {
	s.t.Helper()
	if got := s.env.Exec(s.ctr, "ip addr show eth0 | grep -c inet"); got == "0\n" {
		s.t.Error("the container has no address")
	}
	pods, err := s.env.Runtime.ListPodSandbox(s.env.Context(), &runtimeapi.ListPodSandboxRequest{})
	if err != nil || len(pods.Items) != 1 {
		s.t.Errorf("pods: %v, %v", pods, err)
	}
	containers, err := s.env.Runtime.ListContainers(s.env.Context(), &runtimeapi.ListContainersRequest{})
	if err != nil || len(containers.Containers) != 1 {
		s.t.Errorf("containers: %v, %v", containers, err)
	}
	s.env.Stop(s.ctr, exitGrace)
	s.hasExited()
}

// hasExited checks the exit code, which is 3 of a container that was asked to
// end, and 137 of one that was not given the time to.
func (s *scene) hasExited() {
	s.t.Helper()
	status := s.env.WaitExit(s.ctr)
	if status.ExitCode != 3 && status.ExitCode != 137 {
		s.t.Errorf("exit code %d (%s)", status.ExitCode, status.Reason)
	}
}

// exitGrace is more than the container takes.
const exitGrace = 20 * time.Second
