package oci

import (
	"math"

	rspec "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// IDRange is where the ids of a user namespace, from 0 up, lie on the node.
type IDRange struct{ Host, Length uint32 }

// UserNamespace is how a pod's own user namespace maps users and groups. A nil
// pointer stands for the node's.
type UserNamespace struct{ UIDs, GIDs IDRange }

// ParseUserNamespace reads what a request says of the user namespace; nil for
// the node's, which is also what saying nothing means. One range for users and
// one for groups, each from 0, is what the kubelet sends and all that is
// allowed. The error's kind is Invalid.
func ParseUserNamespace(o *runtimeapi.UserNamespace) (*UserNamespace, error) {
	if o == nil {
		return nil, nil
	}
	switch o.GetMode() {
	case runtimeapi.NamespaceMode_NODE:
		if len(o.GetUids())+len(o.GetGids()) > 0 {
			return nil, invalid("userns_options: mode NODE takes no mappings")
		}
		return nil, nil
	case runtimeapi.NamespaceMode_POD:
	default:
		return nil, invalid("userns_options: mode %s is not allowed, only POD and NODE", o.GetMode())
	}
	uids, err := parseRange("uids", o.GetUids())
	if err != nil {
		return nil, err
	}
	gids, err := parseRange("gids", o.GetGids())
	if err != nil {
		return nil, err
	}
	return &UserNamespace{UIDs: uids, GIDs: gids}, nil
}

func parseRange(name string, mappings []*runtimeapi.IDMapping) (IDRange, error) {
	if len(mappings) != 1 {
		return IDRange{}, invalid("userns_options.%s: %d mappings, only one is allowed", name, len(mappings))
	}
	m := mappings[0]
	if m.GetContainerId() != 0 {
		return IDRange{}, invalid("userns_options.%s: the mapping begins at %d of the container, not at 0", name, m.GetContainerId())
	}
	if err := checkMapping("userns_options."+name, m); err != nil {
		return IDRange{}, err
	}
	return IDRange{Host: m.GetHostId(), Length: m.GetLength()}, nil
}

// checkMapping refuses a range that holds nothing, or the id that means none.
func checkMapping(name string, m *runtimeapi.IDMapping) error {
	length := uint64(m.GetLength())
	if length == 0 || uint64(m.GetHostId())+length > math.MaxUint32 || uint64(m.GetContainerId())+length > math.MaxUint32 {
		return invalid("%s: %d ids from %d (%d on the node) are not a range of ids",
			name, m.GetLength(), m.GetContainerId(), m.GetHostId())
	}
	return nil
}

// checkUser refuses a user or group that the namespace does not have.
func (u *UserNamespace) checkUser(user User) error {
	if user.UID >= u.UIDs.Length {
		return invalid("user %d is outside the pod's user namespace, which has %d ids", user.UID, u.UIDs.Length)
	}
	for _, gid := range append([]uint32{user.GID}, user.Groups...) {
		if gid >= u.GIDs.Length {
			return invalid("group %d is outside the pod's user namespace, which has %d ids", gid, u.GIDs.Length)
		}
	}
	return nil
}

// Root is who the namespace's root is on the node: 0 and 0 for the node's namespace.
func (u *UserNamespace) Root() (uid, gid uint32) {
	if u == nil {
		return 0, 0
	}
	return u.UIDs.Host, u.GIDs.Host
}

func (r IDRange) mapping() rspec.LinuxIDMapping {
	return rspec.LinuxIDMapping{ContainerID: 0, HostID: r.Host, Size: r.Length}
}

// setUserNamespace gives the specification a user namespace: that at path, or a
// new one for "". Runtimes need the mappings in both cases.
func setUserNamespace(spec *rspec.Spec, u *UserNamespace, path string) {
	if u == nil {
		return
	}
	spec.Linux.Namespaces = append(spec.Linux.Namespaces, rspec.LinuxNamespace{Type: rspec.UserNamespace, Path: path})
	spec.Linux.UIDMappings = []rspec.LinuxIDMapping{u.UIDs.mapping()}
	spec.Linux.GIDMappings = []rspec.LinuxIDMapping{u.GIDs.mapping()}
}

// PodUserNamespace reads the user namespace of a pod that goes together with
// its other namespaces.
func PodUserNamespace(o *runtimeapi.NamespaceOption) (*UserNamespace, error) {
	u, err := ParseUserNamespace(o.GetUsernsOptions())
	if err != nil || u == nil {
		return nil, err
	}
	for name, mode := range map[string]runtimeapi.NamespaceMode{"pid": o.GetPid(), "ipc": o.GetIpc()} {
		if mode == runtimeapi.NamespaceMode_NODE {
			return nil, invalid("namespace_options.%s: a pod with a user namespace can't use the node's", name)
		}
	}
	return u, nil
}

// containerUserNamespace is that of the container's pod. What the container's
// own options say must be the same; saying nothing is.
func containerUserNamespace(own, pod *runtimeapi.NamespaceOption) (*UserNamespace, error) {
	u, err := PodUserNamespace(pod)
	if err != nil || own.GetUsernsOptions() == nil {
		return u, err
	}
	asked, err := ParseUserNamespace(own.GetUsernsOptions())
	switch {
	case err != nil:
		return nil, err
	case (asked == nil) != (u == nil) || asked != nil && *asked != *u:
		return nil, invalid("userns_options: they differ from the pod's")
	case u != nil && own.GetPid() == runtimeapi.NamespaceMode_NODE:
		return nil, invalid("namespace_options.pid: a container with a user namespace can't use the node's")
	}
	return u, nil
}
