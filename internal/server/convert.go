package server

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/internal/container"
	"github.com/gantry-cri/gantry/internal/sandbox"
)

func hasPrefix(s, prefix string) bool { return strings.HasPrefix(s, prefix) }

// matches reports whether labels have every pair of selector.
func matches(labels, selector map[string]string) bool {
	for k, v := range selector {
		if got, ok := labels[k]; !ok || got != v {
			return false
		}
	}
	return true
}

func containerState(s container.State) runtimeapi.ContainerState {
	switch s {
	case container.Created:
		return runtimeapi.ContainerState_CONTAINER_CREATED
	case container.Running:
		return runtimeapi.ContainerState_CONTAINER_RUNNING
	case container.Exited:
		return runtimeapi.ContainerState_CONTAINER_EXITED
	}
	return runtimeapi.ContainerState_CONTAINER_UNKNOWN
}

func listed(c *container.Container) *runtimeapi.Container {
	cfg := c.Config()
	return &runtimeapi.Container{
		Id:           string(c.ID()),
		PodSandboxId: string(c.PodID()),
		Metadata:     cfg.GetMetadata(),
		Image:        cfg.GetImage(),
		ImageRef:     c.Record.ImageRef,
		ImageId:      c.Record.ImageID,
		State:        containerState(c.Status().State),
		CreatedAt:    c.Record.CreatedAt.UnixNano(),
		Labels:       cfg.GetLabels(),
		Annotations:  cfg.GetAnnotations(),
	}
}

func containerStatus(c *container.Container) *runtimeapi.ContainerStatus {
	return containerStatusAt(c, c.Status())
}

// containerStatusAt is what containerStatus was when the container's state was st.
func containerStatusAt(c *container.Container, st container.Status) *runtimeapi.ContainerStatus {
	cfg := c.Config()
	out := &runtimeapi.ContainerStatus{
		Id:          string(c.ID()),
		Metadata:    cfg.GetMetadata(),
		State:       containerState(st.State),
		CreatedAt:   c.Record.CreatedAt.UnixNano(),
		FinishedAt:  nanos(st.FinishedAt),
		ExitCode:    int32(st.ExitCode),
		Image:       shownImage(cfg.GetImage()),
		ImageRef:    c.Record.ImageRef,
		ImageId:     c.Record.ImageID,
		Reason:      st.Reason,
		Message:     st.Message,
		Labels:      cfg.GetLabels(),
		Annotations: cfg.GetAnnotations(),
		Mounts:      c.Mounts(),
		LogPath:     c.Record.LogPath,
		Resources:   &runtimeapi.ContainerResources{Linux: c.Resources()},
		User:        user(c),
		StopSignal:  c.Record.StopSignal(),
	}
	if st.State != container.Created {
		out.StartedAt = nanos(st.StartedAt)
	}
	return out
}

// shownImage names the image as its user did, which is what the kubelet shows in
// a pod's status; what it asks for itself is an id.
func shownImage(spec *runtimeapi.ImageSpec) *runtimeapi.ImageSpec {
	name := spec.GetUserSpecifiedImage()
	if name == "" || name == spec.GetImage() {
		return spec
	}
	shown := proto.Clone(spec).(*runtimeapi.ImageSpec)
	shown.Image = name
	return shown
}

func user(c *container.Container) *runtimeapi.ContainerUser {
	u := c.Record.User
	linux := &runtimeapi.LinuxContainerUser{Uid: int64(u.UID), Gid: int64(u.GID)}
	for _, g := range u.Groups {
		linux.SupplementalGroups = append(linux.SupplementalGroups, int64(g))
	}
	return &runtimeapi.ContainerUser{Linux: linux}
}

// nanos is CRI's form of a time: nanoseconds since 1970, 0 for none.
func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

// podInfo is the verbose part of PodSandboxStatus: one key "info" with JSON.
func podInfo(p *sandbox.Pod) (map[string]string, error) {
	st := p.Status()
	return info(map[string]any{
		"pid":          st.PausePID,
		"state":        st.State.String(),
		"reason":       st.Reason,
		"runtime":      p.Record.Runtime,
		"cgroupParent": p.Record.CgroupParent,
		"cgroups":      p.Record.Cgroups,
		"directory":    p.Dir(),
		"config":       p.Record.Config,
		"resources":    p.Resources(),
		"runtimeSpec":  spec(filepath.Join(p.Dir(), "bundle")),
	})
}

// containerInfo is the verbose part of ContainerStatus: one key "info" with JSON.
func containerInfo(c *container.Container) (map[string]string, error) {
	return info(map[string]any{
		"sandboxID":   c.PodID(),
		"pid":         c.Status().PID,
		"cgroup":      c.Record.Cgroup,
		"bundle":      c.Dir(),
		"config":      c.Record.Config,
		"runtimeSpec": spec(c.Dir()),
	})
}

// spec is the OCI spec of a bundle; null where it is not there.
func spec(bundle string) json.RawMessage {
	text, err := os.ReadFile(filepath.Join(bundle, "config.json"))
	if err != nil || !json.Valid(text) {
		return json.RawMessage("null")
	}
	return text
}

func info(v any) (map[string]string, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("verbose status: %w", err)
	}
	return map[string]string{"info": string(text)}, nil
}
