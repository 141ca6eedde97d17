// Package selinux chooses the SELinux labels of pods and containers, and labels
// volumes. On a node without SELinux it does nothing.
package selinux

import (
	"errors"
	"fmt"
	"slices"

	lib "github.com/opencontainers/selinux/go-selinux"
	"github.com/opencontainers/selinux/go-selinux/label"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/internal/errkind"
)

// Labels are what a container's processes and its files are labelled with; ""
// is what the node's policy makes of them by itself.
type Labels struct {
	Process string `json:"process,omitempty"`
	Mount   string `json:"mount,omitempty"`
}

// Overlay adds the label of the files of an overlay to its mount options.
func (l Labels) Overlay(options []string) []string {
	if l.Mount == "" {
		return options
	}
	return append(slices.Clip(options), "context="+l.Mount)
}

// Kernel is what Node asks of the kernel and its policy.
type Kernel struct {
	// New returns the policy's labels for containers, with a pair of categories
	// that no other pod has, until it is released.
	New func() Labels
	// Layers returns the policy's label for files that containers may read and
	// run; "" if it has none.
	Layers func() string
	// Reserve keeps the categories of a label from being chosen; Release undoes that.
	Reserve, Release func(process string)
	// Check refuses a label that the policy does not know.
	Check func(process string) error
	// Relabel labels a file or a directory with all that is in it.
	Relabel func(path, mount string) error
}

// Node is a node's SELinux. It is safe for concurrent use.
type Node struct {
	enabled bool
	kernel  Kernel
	relabels
}

// Real is this node's.
func Real(enabled bool) *Node {
	return New(enabled, Kernel{
		New: func() Labels {
			process, mount, err := label.InitLabels(nil)
			if err != nil { // with options only
				return Labels{}
			}
			return Labels{process, mount}
		},
		Layers: func() string {
			if process, _, err := label.InitLabels(nil); err == nil { // which reads them
				lib.ReleaseLabel(process)
			}
			//lint:ignore SA1019 It has this user, and nothing else tells what the policy says.
			return lib.ROFileLabel()
		},
		Reserve: func(l string) {
			_ = lib.ReserveLabelV2(l) // one that is reserved already stays so
		},
		Release: lib.ReleaseLabel,
		Check:   lib.SecurityCheckContext,
		Relabel: func(path, mount string) error { return label.Relabel(path, mount, false) },
	})
}

// New returns a node with the kernel k.
func New(enabled bool, k Kernel) *Node {
	return &Node{enabled: enabled, kernel: k, relabels: newRelabels()}
}

// Problem says why containers are not confined on a node with SELinux: the
// policy that is loaded has no labels for them. nil if they are.
func (n *Node) Problem() error {
	if !n.enabled {
		return nil
	}
	l := n.kernel.New()
	if l == (Labels{}) {
		return errors.New("SELinux: the policy names no labels for containers: they are not confined")
	}
	defer n.kernel.Release(l.Process)
	return n.check(l)
}

// Layers is the label of image layers: the kernel asks for the right to a file of
// a layer, besides that to the container's root, when it is mapped. "" without
// SELinux, and where the policy has none.
func (n *Node) Layers() string {
	if !n.enabled {
		return ""
	}
	label := n.kernel.Layers()
	if label == "" || n.kernel.Check(label) != nil {
		return ""
	}
	return label
}

// check returns an error for labels that the policy does not know, though it
// may name them.
func (n *Node) check(l Labels) error {
	for _, label := range []string{l.Process, l.Mount} {
		if err := n.kernel.Check(label); err != nil {
			return fmt.Errorf("SELinux: the policy that is loaded does not know the label %q: %w", label, err)
		}
	}
	return nil
}

// Pod chooses the labels of a new pod: those that the policy has for
// containers, changed by the request's options, with categories of the pod's
// own unless the options name a level. Release gives them back. The error's
// kind is Invalid for a label that the policy does not know, and Unsupported if
// it knows none for containers and the options ask for one.
func (n *Node) Pod(o *runtimeapi.SELinuxOption) (Labels, error) {
	if !n.enabled {
		return Labels{}, nil
	}
	fresh := n.kernel.New()
	if n.check(fresh) != nil {
		n.kernel.Release(fresh.Process)
		fresh = Labels{}
	}
	l, err := n.override(fresh, o)
	if err != nil || o.GetLevel() != "" {
		n.kernel.Release(fresh.Process)
	}
	if err != nil {
		return Labels{}, err
	}
	n.Reserve(l)
	return l, nil
}

// Container is what a container of a pod is labelled with: as the pod, changed
// by the container's own options. One that is not to be confined, and does not
// ask for a label, gets none for its processes.
func (n *Node) Container(pod Labels, o *runtimeapi.SELinuxOption, confined bool) (Labels, error) {
	if !n.enabled {
		return Labels{}, nil
	}
	l, err := n.override(pod, o)
	if err == nil && !confined && !Asked(o) {
		l.Process = ""
	}
	return l, err
}

// Reserve keeps the categories of a pod that an earlier daemon made.
func (n *Node) Reserve(l Labels) {
	if n.enabled && l.Process != "" {
		n.kernel.Reserve(l.Process)
	}
}

// Release gives the categories of a removed pod back.
func (n *Node) Release(l Labels) {
	if n.enabled && l.Process != "" {
		n.kernel.Release(l.Process)
	}
}

// Asked reports whether the options ask for anything.
func Asked(o *runtimeapi.SELinuxOption) bool {
	return o.GetUser() != "" || o.GetRole() != "" || o.GetType() != "" || o.GetLevel() != ""
}

// override changes labels by options. The type of files stays: it is what lets
// containers use them.
func (n *Node) override(l Labels, o *runtimeapi.SELinuxOption) (Labels, error) {
	if !Asked(o) {
		return l, nil
	}
	if l.Process == "" || l.Mount == "" {
		return l, errkind.Errorf(errkind.Unsupported, "selinux_options: this node's policy has no labels for containers")
	}
	process, err := lib.NewContext(l.Process)
	if err != nil {
		return l, fmt.Errorf("selinux label %q: %w", l.Process, err)
	}
	mount, err := lib.NewContext(l.Mount)
	if err != nil {
		return l, fmt.Errorf("selinux label %q: %w", l.Mount, err)
	}
	for key, value := range map[string]string{"user": o.GetUser(), "role": o.GetRole(), "type": o.GetType(), "level": o.GetLevel()} {
		if value == "" {
			continue
		}
		process[key] = value
		if key == "user" || key == "level" {
			mount[key] = value
		}
	}
	l = Labels{process.Get(), mount.Get()}
	if err := n.check(l); err != nil {
		return l, errkind.Errorf(errkind.Invalid, "selinux_options: %w", err)
	}
	return l, nil
}
