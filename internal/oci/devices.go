package oci

import (
	"strings"

	rspec "github.com/opencontainers/runtime-spec/specs-go"
)

// setDevices gives the container the devices of the request and allows it to
// use them. A privileged container gets the node's and may use any; every
// other may use only its own and those that every container has, which the
// runtime adds.
func (s *containerSpec) setDevices() error {
	if s.privileged() {
		// The list is empty where the handler keeps the node's devices out.
		for _, d := range s.in.Host.AllDevices {
			s.AddDevice(d)
		}
		s.AddLinuxResourcesDevice(true, "", nil, nil, "rwm")
	} else {
		s.AddLinuxResourcesDevice(false, "", nil, nil, "rwm")
	}
	for i, d := range s.in.Config.GetDevices() {
		permissions := d.GetPermissions()
		if permissions == "" {
			permissions = "rwm"
		}
		if strings.Trim(permissions, "rwm") != "" {
			return invalid("device %s: permissions %q are not of r, w and m", d.GetHostPath(), permissions)
		}
		if i >= len(s.in.Host.Devices) || len(s.in.Host.Devices[i]) == 0 {
			return invalid("device %s: there is no device of the node", d.GetHostPath())
		}
		for _, node := range s.in.Host.Devices[i] {
			s.addDevice(node, permissions)
		}
	}
	return nil
}

func (s *containerSpec) addDevice(d rspec.LinuxDevice, permissions string) {
	s.AddDevice(d)
	if !s.privileged() {
		s.AddLinuxResourcesDevice(true, d.Type, &d.Major, &d.Minor, permissions)
	}
}
