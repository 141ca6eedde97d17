package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/internal/errkind"
	"github.com/gantry-cri/gantry/internal/oci"
	"github.com/gantry-cri/gantry/internal/statefile"
)

// Resources are what the kubelet says of a pod as a whole. Gantry sets no
// limits by them. It is what resources.json holds once they were updated.
type Resources struct {
	Overhead  statefile.Proto[*runtimeapi.LinuxContainerResources] `json:"overhead"`  // of the sandbox itself
	Resources statefile.Proto[*runtimeapi.LinuxContainerResources] `json:"resources"` // the sum of the containers'
}

// configured are the resources of the request that a pod was made from.
func configured(cfg *runtimeapi.PodSandboxConfig) *Resources {
	return &Resources{
		Overhead:  statefile.Of(cfg.GetLinux().GetOverhead()),
		Resources: statefile.Of(cfg.GetLinux().GetResources()),
	}
}

// Resources are the pod's as they were told last. Read only; it never waits.
func (p *Pod) Resources() Resources { return *p.resources.Load() }

// UpdateResources replaces the pod's overhead and resources, each unless it is
// nil, on disk first. The kind of the error is Invalid for values that make no
// sense, and Precondition for a pod that is not ready.
func (p *Pod) UpdateResources(overhead, resources *runtimeapi.LinuxContainerResources) error {
	if err := errors.Join(oci.CheckResources(overhead), oci.CheckResources(resources)); err != nil {
		return fmt.Errorf("update pod %s: %w", p.Record.ID, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if st := p.Status().State; st != Ready {
		return errkind.Errorf(errkind.Precondition, "update pod %s: it is %s, not ready", p.Record.ID, st)
	}
	next := p.Resources()
	if overhead != nil {
		next.Overhead = statefile.Of(overhead)
	}
	if resources != nil {
		next.Resources = statefile.Of(resources)
	}
	if err := statefile.Write(filepath.Join(p.dir, resourcesFile), resourcesVer, next); err != nil {
		return fmt.Errorf("record the resources of pod %s: %w", p.Record.ID, err)
	}
	p.resources.Store(&next)
	return nil
}

// recoverResources reads what an earlier daemon was told.
func (p *Pod) recoverResources() error {
	var known Resources
	err := statefile.Read(filepath.Join(p.dir, resourcesFile), resourcesVer, &known)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("resources of pod %s: %w", p.Record.ID, err)
	}
	p.resources.Store(&known)
	return nil
}
