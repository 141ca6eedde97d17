package testenv

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Names of the images of images.Demo.
const (
	Busybox = "docker.io/library/busybox:latest"
	Nginx   = "docker.io/library/nginx:alpine"
)

// PodConfig returns a pod with the name, its own uid, and a log directory.
func (e *Env) PodConfig(name string) *runtimeapi.PodSandboxConfig {
	linux := &runtimeapi.LinuxPodSandboxConfig{}
	if Peer() {
		linux.CgroupParent = e.CgroupParent // peers have a default of their own
	}
	return &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: name, Namespace: "test", Uid: e.Name + "-" + name},
		Hostname:     name,
		LogDirectory: filepath.Join(e.LogDir, name),
		Labels:       map[string]string{"test": e.t.Name()},
		Linux:        linux,
	}
}

// RunPod runs a pod with the default handler and returns its id.
func (e *Env) RunPod(config *runtimeapi.PodSandboxConfig) string {
	e.t.Helper()
	resp, err := e.Runtime.RunPodSandbox(e.Context(), &runtimeapi.RunPodSandboxRequest{Config: config})
	if err != nil {
		e.t.Fatalf("RunPodSandbox %s: %v", config.GetMetadata().GetName(), err)
	}
	return resp.PodSandboxId
}

// Pull pulls an image and returns its id.
func (e *Env) Pull(image string) string {
	e.t.Helper()
	resp, err := e.Images.PullImage(e.Context(), &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: image}})
	if err != nil {
		e.t.Fatalf("PullImage %s: %v", image, err)
	}
	return resp.ImageRef
}

// ContainerConfig returns a container of the busybox image that runs a shell
// script.
func (e *Env) ContainerConfig(name, script string) *runtimeapi.ContainerConfig {
	return &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: name},
		Image:    &runtimeapi.ImageSpec{Image: Busybox, UserSpecifiedImage: Busybox},
		Command:  []string{"sh", "-c", script},
		LogPath:  name + ".log",
		Linux:    &runtimeapi.LinuxContainerConfig{},
	}
}

// Create creates a container, and the pod's log directory, and returns its id.
func (e *Env) Create(pod string, config *runtimeapi.ContainerConfig, podConfig *runtimeapi.PodSandboxConfig) string {
	e.t.Helper()
	if err := os.MkdirAll(podConfig.LogDirectory, 0o755); err != nil {
		e.t.Fatal(err)
	}
	resp, err := e.Runtime.CreateContainer(e.Context(), &runtimeapi.CreateContainerRequest{
		PodSandboxId: pod, Config: config, SandboxConfig: podConfig,
	})
	if err != nil {
		e.t.Fatalf("CreateContainer %s: %v", config.GetMetadata().GetName(), err)
	}
	return resp.ContainerId
}

// Start starts a created container.
func (e *Env) Start(container string) {
	e.t.Helper()
	_, err := e.Runtime.StartContainer(e.Context(), &runtimeapi.StartContainerRequest{ContainerId: container})
	if err != nil {
		e.t.Fatalf("StartContainer %s: %v", container, err)
	}
}

// Run creates and starts a container.
func (e *Env) Run(pod string, config *runtimeapi.ContainerConfig, podConfig *runtimeapi.PodSandboxConfig) string {
	e.t.Helper()
	id := e.Create(pod, config, podConfig)
	e.Start(id)
	return id
}

// Stop stops a container.
func (e *Env) Stop(container string, grace time.Duration) {
	e.t.Helper()
	_, err := e.Runtime.StopContainer(e.Context(), &runtimeapi.StopContainerRequest{ContainerId: container, Timeout: int64(grace.Seconds())})
	if err != nil {
		e.t.Fatalf("StopContainer %s: %v", container, err)
	}
}

// Remove removes a container.
func (e *Env) Remove(container string) {
	e.t.Helper()
	_, err := e.Runtime.RemoveContainer(e.Context(), &runtimeapi.RemoveContainerRequest{ContainerId: container})
	if err != nil {
		e.t.Fatalf("RemoveContainer %s: %v", container, err)
	}
}

// StopPod stops a pod.
func (e *Env) StopPod(pod string) {
	e.t.Helper()
	_, err := e.Runtime.StopPodSandbox(e.Context(), &runtimeapi.StopPodSandboxRequest{PodSandboxId: pod})
	if err != nil {
		e.t.Fatalf("StopPodSandbox %s: %v", pod, err)
	}
}

// RemovePod stops and removes a pod.
func (e *Env) RemovePod(pod string) {
	e.t.Helper()
	e.StopPod(pod)
	_, err := e.Runtime.RemovePodSandbox(e.Context(), &runtimeapi.RemovePodSandboxRequest{PodSandboxId: pod})
	if err != nil {
		e.t.Fatalf("RemovePodSandbox %s: %v", pod, err)
	}
}

// RemoveAll stops and removes every pod; it reports errors and goes on.
func (e *Env) RemoveAll() {
	e.t.Helper()
	list, err := e.Runtime.ListPodSandbox(e.Context(), &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		e.t.Errorf("ListPodSandbox: %v", err)
		return
	}
	for _, pod := range list.Items {
		_, stopErr := e.Runtime.StopPodSandbox(e.Context(), &runtimeapi.StopPodSandboxRequest{PodSandboxId: pod.Id})
		_, removeErr := e.Runtime.RemovePodSandbox(e.Context(), &runtimeapi.RemovePodSandboxRequest{PodSandboxId: pod.Id})
		if err := errors.Join(stopErr, removeErr); err != nil {
			e.t.Errorf("remove pod %s: %v", pod.Id, err)
		}
	}
}

// Exec runs a shell script in a container and returns what it printed on
// stdout; the script must end well.
func (e *Env) Exec(container, script string) string {
	e.t.Helper()
	resp, err := e.Runtime.ExecSync(e.Context(), &runtimeapi.ExecSyncRequest{
		ContainerId: container, Cmd: []string{"sh", "-c", script}, Timeout: 20,
	})
	if err != nil {
		e.t.Fatalf("ExecSync %q: %v", script, err)
	}
	if resp.ExitCode != 0 {
		e.t.Fatalf("ExecSync %q: exit code %d, stdout %q, stderr %q", script, resp.ExitCode, resp.Stdout, resp.Stderr)
	}
	return string(resp.Stdout)
}

// Status returns a container's status.
func (e *Env) Status(container string) *runtimeapi.ContainerStatus {
	e.t.Helper()
	resp, err := e.Runtime.ContainerStatus(e.Context(), &runtimeapi.ContainerStatusRequest{ContainerId: container})
	if err != nil {
		e.t.Fatalf("ContainerStatus %s: %v", container, err)
	}
	return resp.Status
}

// PodStatus returns a pod's status.
func (e *Env) PodStatus(pod string) *runtimeapi.PodSandboxStatus {
	e.t.Helper()
	resp, err := e.Runtime.PodSandboxStatus(e.Context(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: pod})
	if err != nil {
		e.t.Fatalf("PodSandboxStatus %s: %v", pod, err)
	}
	return resp.Status
}

// WaitExit waits until a container has ended and returns its last status.
func (e *Env) WaitExit(container string) *runtimeapi.ContainerStatus {
	e.t.Helper()
	var status *runtimeapi.ContainerStatus
	e.Eventually("container "+container+" to end", func() error {
		status = e.Status(container)
		if status.State != runtimeapi.ContainerState_CONTAINER_EXITED {
			return fmt.Errorf("it is %s", status.State)
		}
		return nil
	})
	return status
}

// WaitLog waits until a container's log holds the text.
func (e *Env) WaitLog(file, text string) {
	e.t.Helper()
	e.Eventually(fmt.Sprintf("%q in %s", text, file), func() error {
		data, err := os.ReadFile(file)
		if err == nil && !strings.Contains(string(data), text) {
			err = fmt.Errorf("it holds %q", data)
		}
		return err
	})
}

// Eventually calls check until it returns nil, for 20 s.
func (e *Env) Eventually(what string, check func() error) {
	e.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			e.t.Fatalf("waited a minute for %s: %v", what, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
