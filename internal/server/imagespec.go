package server

import (
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/internal/errkind"
)

// checkImageSpec refuses an image for a runtime handler that there is none of,
// as the CRI wants. Every handler that there is uses the same images. The
// spec's annotations steer nothing here; a container reports them.
func (s *Server) checkImageSpec(spec *runtimeapi.ImageSpec) error {
	name := spec.GetRuntimeHandler()
	if _, ok := s.opts.Pods.Runtimes()[name]; name != "" && !ok {
		return errkind.Errorf(errkind.Invalid, "image %s: runtime handler %q is not configured", spec.GetImage(), name)
	}
	return nil
}
