package container

import (
	"context"
	"fmt"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/internal/oci"
	"github.com/gantry-cri/gantry/internal/selinux"
)

// labels are the SELinux labels of a container. SELinux does not confine one
// that is privileged or works on the node's processes or their IPC.
func (m *Manager) labels(pod *Pod, cfg *runtimeapi.ContainerConfig) (selinux.Labels, error) {
	sc, ipc := cfg.GetLinux().GetSecurityContext(), pod.Config.GetLinux().GetSecurityContext().GetNamespaceOptions().GetIpc()
	pid := sc.GetNamespaceOptions().GetPid()
	confined := !sc.GetPrivileged() && pid != runtimeapi.NamespaceMode_NODE && ipc != runtimeapi.NamespaceMode_NODE
	return m.env.SELinux.Container(pod.SELinux, sc.GetSelinuxOptions(), confined)
}

// LabelVolumes labels the volumes of a container that is about to be created,
// as far as its request asks for that. It can take long, so the caller holds
// nothing that others wait for.
func (m *Manager) LabelVolumes(ctx context.Context, pod *Pod, cfg *runtimeapi.ContainerConfig) error {
	if m.byName(pod.ID, cfg.GetMetadata()) != nil {
		return nil // it is there already
	}
	labels, err := m.labels(pod, cfg)
	if err != nil {
		return fmt.Errorf("create container %s: %w", cfg.GetMetadata().GetName(), err)
	}
	for _, mount := range cfg.GetMounts() {
		if !mount.GetSelinuxRelabel() || mount.GetHostPath() == "" || labels.Mount == "" {
			continue
		}
		path, err := oci.HostPath(mount)
		if err == nil {
			err = m.env.SELinux.Relabel(ctx, path, labels.Mount)
		}
		if err != nil {
			return fmt.Errorf("create container %s: mount %s: %w", cfg.GetMetadata().GetName(), mount.GetContainerPath(), err)
		}
	}
	return nil
}
