package server

import (
	"context"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/internal/container"
	"github.com/gantry-cri/gantry/internal/id"
	"github.com/gantry-cri/gantry/internal/sandbox"
	"github.com/gantry-cri/gantry/internal/stats"
)

// Measured returns what lists, from memory, everything that is to be measured.
func Measured(pods *sandbox.Manager, containers *container.Manager) func() []stats.Pod {
	return func() []stats.Pod { return measuredPods(pods, containers, nil) }
}

// measuredPods describes the pods that keep accepts (all for nil) and that are
// not stopped, with their containers.
func measuredPods(pods *sandbox.Manager, containers *container.Manager, keep func(*sandbox.Pod) bool) []stats.Pod {
	all := pods.List(func(p *sandbox.Pod) bool { return p.Status().State != sandbox.Stopped })
	parents := make(map[string]int, len(all)) // how many pods have it
	for _, p := range all {
		parents[p.Cgroup()]++
	}
	byPod := make(map[id.Pod][]*container.Container, len(all))
	for _, c := range containers.List(nil) {
		byPod[c.PodID()] = append(byPod[c.PodID()], c)
	}
	out := make([]stats.Pod, 0, len(all))
	for _, p := range all {
		if keep != nil && !keep(p) {
			continue
		}
		out = append(out, stats.Pod{
			ID:         p.ID(),
			Attributes: podAttributes(p),
			Cgroup:     p.Cgroup(),
			Shared:     parents[p.Cgroup()] > 1,
			Parts:      p.Cgroups(),
			PausePID:   p.Status().PausePID,
			NetNS:      p.NetNS(),
			CreatedAt:  p.Record.CreatedAt,
			Containers: measuredContainers(byPod[p.ID()]),
		})
	}
	return out
}

// measuredContainers describes the containers that have not exited.
func measuredContainers(list []*container.Container) []stats.Container {
	out := make([]stats.Container, 0, len(list))
	for _, c := range list {
		if c.Status().State != container.Exited {
			out = append(out, measuredContainer(c))
		}
	}
	return out
}

func measuredContainer(c *container.Container) stats.Container {
	st, cfg := c.Status(), c.Config()
	image := cfg.GetImage().GetUserSpecifiedImage()
	if image == "" {
		image = cfg.GetImage().GetImage()
	}
	return stats.Container{
		ID: c.ID(),
		Attributes: &runtimeapi.ContainerAttributes{
			Id:          string(c.ID()),
			Metadata:    cfg.GetMetadata(),
			Labels:      cfg.GetLabels(),
			Annotations: cfg.GetAnnotations(),
		},
		Cgroup:    c.Record.Cgroup,
		Image:     image,
		PID:       st.PID,
		StartedAt: st.StartedAt,
		Tell:      tellOf(c),
		Exited:    st.State == container.Exited,
	}
}

// tellOf is how to ask the sandbox that the container's processes are in; nil
// if they are in none.
func tellOf(c *container.Container) func(context.Context) (stats.Told, error) {
	if !c.InSandbox() {
		return nil
	}
	return func(ctx context.Context) (stats.Told, error) {
		u, err := c.SandboxUsage(ctx)
		return stats.Told{CPU: u.CPU, Memory: u.Memory, Threads: u.Threads}, err
	}
}

func podAttributes(p *sandbox.Pod) *runtimeapi.PodSandboxAttributes {
	return &runtimeapi.PodSandboxAttributes{
		Id:          string(p.ID()),
		Metadata:    p.Config().GetMetadata(),
		Labels:      p.Config().GetLabels(),
		Annotations: p.Config().GetAnnotations(),
	}
}
