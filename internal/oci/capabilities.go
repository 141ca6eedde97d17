package oci

import (
	"slices"
	"strings"

	rspec "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/gantry-cri/gantry/internal/node"
)

// defaultCapabilities are what a container has that asks for nothing, as with
// Docker.
var defaultCapabilities = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID",
	"CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SYS_CHROOT", "CAP_MKNOD", "CAP_AUDIT_WRITE",
	"CAP_SETFCAP",
}

const allCapabilities = "ALL"

// setCapabilities gives the process its capability sets. The bounding set is
// what the request makes of the default. A process of root has all of it;
// any other has only its ambient capabilities, which it has besides whatever
// a file it executes grants from the bounding set. Nothing is inheritable but
// what is ambient.
func (s *containerSpec) setCapabilities() error {
	bounding, err := s.boundingSet()
	if err != nil {
		return err
	}
	ambient, err := s.ambientSet()
	if err != nil {
		return err
	}
	for name := range ambient {
		bounding[name] = true
	}
	sets := &rspec.LinuxCapabilities{
		Bounding:    s.ordered(bounding),
		Inheritable: s.ordered(ambient),
		Ambient:     s.ordered(ambient),
	}
	sets.Permitted = sets.Ambient
	if s.in.User.UID == 0 {
		sets.Permitted = sets.Bounding
	}
	sets.Effective = sets.Permitted
	s.Config.Process.Capabilities = sets
	return nil
}

// boundingSet applies the request to the default: first ALL of either list,
// then the single additions, then the single drops.
func (s *containerSpec) boundingSet() (map[string]bool, error) {
	set := map[string]bool{}
	add, err := s.capabilityList("add_capabilities", s.sc.GetCapabilities().GetAddCapabilities())
	if err != nil {
		return nil, err
	}
	drop, err := s.capabilityList("drop_capabilities", s.sc.GetCapabilities().GetDropCapabilities())
	if err != nil {
		return nil, err
	}
	switch {
	case s.privileged():
		add, drop = []string{allCapabilities}, nil
		s.fill(set, s.in.Node.Bounding)
	case slices.Contains(drop, allCapabilities):
	case slices.Contains(add, allCapabilities):
		s.fill(set, s.in.Node.Bounding)
	default:
		s.fill(set, defaultCapabilities)
	}
	for _, name := range add {
		if name == allCapabilities {
			continue
		}
		if !s.in.Node.HasCapability(name) {
			return nil, unsupported("add_capabilities: this node's daemon does not have %s itself", name)
		}
		set[name] = true
	}
	for _, name := range drop {
		delete(set, name)
	}
	return set, nil
}

func (s *containerSpec) ambientSet() (map[string]bool, error) {
	set := map[string]bool{}
	list, err := s.capabilityList("add_ambient_capabilities", s.sc.GetCapabilities().GetAddAmbientCapabilities())
	if err != nil {
		return nil, err
	}
	for _, name := range list {
		switch {
		case name == allCapabilities:
			s.fill(set, s.in.Node.Bounding)
		case s.in.Node.HasCapability(name):
			set[name] = true
		default:
			return nil, unsupported("add_ambient_capabilities: this node's daemon does not have %s itself", name)
		}
	}
	return set, nil
}

// capabilityList checks the names of a list, which may lack the CAP_, and
// spells them out.
func (s *containerSpec) capabilityList(field string, names []string) ([]string, error) {
	var list []string
	for _, given := range names {
		name := strings.ToUpper(given)
		if name != allCapabilities && !strings.HasPrefix(name, "CAP_") {
			name = "CAP_" + name
		}
		if name != allCapabilities && !node.KnownCapability(name) {
			return nil, invalid("%s: %q is not a capability", field, given)
		}
		list = append(list, name)
	}
	return list, nil
}

// fill adds those of names that the daemon has: it can't give others.
func (s *containerSpec) fill(set map[string]bool, names []string) {
	for _, name := range names {
		if s.in.Node.HasCapability(name) {
			set[name] = true
		}
	}
}

// ordered lists a set in the kernel's order.
func (s *containerSpec) ordered(set map[string]bool) []string {
	var list []string
	for _, name := range s.in.Node.Bounding {
		if set[name] {
			list = append(list, name)
		}
	}
	return list
}
