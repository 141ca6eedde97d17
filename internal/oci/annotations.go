package oci

import (
	"maps"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-tools/generate"

	"github.com/gantry-cri/gantry/internal/errkind"
)

// The annotations that the specification of every container carries, by the
// custom of CRI daemons: runsc and kata find the pod of a container by them.
const (
	annotationType             = "io.kubernetes.cri.container-type"
	annotationSandboxID        = "io.kubernetes.cri.sandbox-id"
	annotationSandboxName      = "io.kubernetes.cri.sandbox-name"
	annotationSandboxNamespace = "io.kubernetes.cri.sandbox-namespace"
	annotationSandboxUID       = "io.kubernetes.cri.sandbox-uid"
	annotationContainerName    = "io.kubernetes.cri.container-name"
	annotationImageName        = "io.kubernetes.cri.image-name"
)

// runtimeAnnotations are the prefixes by which an annotation changes how a
// runtime works: which file it runs or writes on the node, for one. Who may
// create a pod may not do that, unless the configuration allows it.
var runtimeAnnotations = []string{"run.oci.", "dev.gvisor.", "io.katacontainers.", "org.systemd.property.", "io.kubernetes.cri."}

// addAnnotations adds the handler's default annotations, and over them the
// request's, but for those that only Gantry or the configuration may set.
// Annotations and labels of the image have no part in this.
func addAnnotations(g *generate.Generator, o RuntimeOptions, annotations map[string]string) {
	for key, value := range o.DefaultAnnotations {
		g.AddAnnotation(key, value)
	}
	for key, value := range annotations {
		if !hasPrefix(key, runtimeAnnotations) || hasPrefix(key, o.AllowedAnnotations) {
			g.AddAnnotation(key, value)
		}
	}
}

// addSystemd tells the runtime how the container's scope is to be: it goes away
// with its last process, also if that failed, and the processes are in it, not
// in a child that crun would make.
func addSystemd(g *generate.Generator, systemd bool) {
	if systemd {
		g.AddAnnotation("org.systemd.property.CollectMode", "'inactive-or-failed'")
		g.AddAnnotation("run.oci.systemd.subgroup", "")
	}
}

func hasPrefix(key string, prefixes []string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool { return p != "" && strings.HasPrefix(key, p) })
}

func (s *containerSpec) setAnnotations() error {
	annotations := map[string]string{}
	for key, value := range s.in.Sandbox.GetAnnotations() {
		if hasPrefix(key, s.in.Options.AllowedAnnotations) {
			annotations[key] = value // users can annotate pods only
		}
	}
	maps.Copy(annotations, s.in.Config.GetAnnotations())
	addAnnotations(&s.Generator, s.in.Options, annotations)
	addSystemd(&s.Generator, s.in.Systemd)
	sandbox := s.in.Sandbox.GetMetadata()
	s.AddAnnotation(annotationType, "container")
	s.AddAnnotation(annotationSandboxID, string(s.in.PodID))
	s.AddAnnotation(annotationSandboxName, sandbox.GetName())
	s.AddAnnotation(annotationSandboxNamespace, sandbox.GetNamespace())
	s.AddAnnotation(annotationSandboxUID, sandbox.GetUid())
	s.AddAnnotation(annotationContainerName, s.in.Config.GetMetadata().GetName())
	if s.in.ImageName != "" {
		s.AddAnnotation(annotationImageName, s.in.ImageName)
	}
	return nil
}

func (s *sandboxSpec) setAnnotations() error {
	addAnnotations(&s.Generator, s.in.Options, s.in.Config.GetAnnotations())
	addSystemd(&s.Generator, s.in.Systemd)
	metadata := s.in.Config.GetMetadata()
	s.AddAnnotation(annotationType, "sandbox")
	s.AddAnnotation(annotationSandboxID, string(s.in.ID))
	s.AddAnnotation(annotationSandboxName, metadata.GetName())
	s.AddAnnotation(annotationSandboxNamespace, metadata.GetNamespace())
	s.AddAnnotation(annotationSandboxUID, metadata.GetUid())
	if s.in.SharedMemory != "" {
		// Where a container has this directory mounted, runsc mounts the one tmpfs
		// of the pod, which is inside the sandbox.
		s.AddAnnotation("dev.gvisor.spec.mount.shm.source", s.in.SharedMemory)
		s.AddAnnotation("dev.gvisor.spec.mount.shm.type", "tmpfs")
		s.AddAnnotation("dev.gvisor.spec.mount.shm.share", "pod")
	}
	return nil
}

func invalid(format string, args ...any) error {
	return errkind.Errorf(errkind.Invalid, format, args...)
}

func unsupported(format string, args ...any) error {
	return errkind.Errorf(errkind.Unsupported, format, args...)
}
