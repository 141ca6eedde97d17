package sandbox

import (
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/internal/errkind"
	"github.com/gantry-cri/gantry/internal/oci"
)

// checkSandboxed refuses what a pod can't have whose containers run in a
// sandbox with a kernel of its own.
func checkSandboxed(cfg *runtimeapi.PodSandboxConfig, rt *oci.Runtime) error {
	if !rt.Sandboxed() {
		return nil
	}
	o := namespaces(cfg)
	for _, ns := range []struct {
		name string
		mode runtimeapi.NamespaceMode
	}{{"pid", o.GetPid()}, {"ipc", o.GetIpc()}} {
		if ns.mode == runtimeapi.NamespaceMode_NODE {
			return errkind.Errorf(errkind.Unsupported, "namespace_options.%s: a pod in a sandbox (%s) can't have the node's", ns.name, rt.Name())
		}
	}
	if hostNetwork(cfg) && rt.OwnNetwork() {
		return errkind.Errorf(errkind.Unsupported,
			"namespace_options.network: a pod in a sandbox (%s) has the node's only with a handler whose args contain --network=host", rt.Name())
	}
	return nil
}
