package oci

import (
	"strings"
	"testing"

	rspec "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/internal/errkind"
)

func idMapping(container, host, length uint32) []*runtimeapi.IDMapping {
	return []*runtimeapi.IDMapping{{ContainerId: container, HostId: host, Length: length}}
}

func mapped(container, host, length uint32) *runtimeapi.NamespaceOption {
	return &runtimeapi.NamespaceOption{UsernsOptions: &runtimeapi.UserNamespace{
		Uids: idMapping(container, host, length), Gids: idMapping(container, host, length),
	}}
}

func withIDs(m *runtimeapi.Mount, length uint32) *runtimeapi.Mount {
	m.UidMappings, m.GidMappings = idMapping(0, 1000, length), idMapping(0, 1000, length)
	return m
}

// inUserNS puts a container into a pod with a user namespace of 1000 ids.
func inUserNS(f func(*ContainerInput, *containerConfig, *securityContext)) func(*ContainerInput, *containerConfig, *securityContext) {
	return func(in *ContainerInput, c *containerConfig, sc *securityContext) {
		in.Sandbox.Linux.SecurityContext.NamespaceOptions = mapped(0, 1000, 1000)
		in.UserNS = "/proc/42/ns/user"
		f(in, c, sc)
	}
}

func TestParseUserNamespaceRefuses(t *testing.T) {
	two := append(idMapping(0, 1000, 10), idMapping(10, 2000, 10)...)
	for name, u := range map[string]*runtimeapi.UserNamespace{
		"no mapping":       {},
		"no gids":          {Uids: idMapping(0, 1, 1)},
		"two":              {Uids: two, Gids: two},
		"not from 0":       {Uids: idMapping(1, 1, 1), Gids: idMapping(0, 1, 1)},
		"no length":        {Uids: idMapping(0, 1, 0), Gids: idMapping(0, 1, 1)},
		"too long":         {Uids: idMapping(0, 1<<31, 1<<31), Gids: idMapping(0, 1, 1)},
		"container":        {Mode: runtimeapi.NamespaceMode_CONTAINER},
		"target":           {Mode: runtimeapi.NamespaceMode_TARGET},
		"node with ranges": {Mode: runtimeapi.NamespaceMode_NODE, Uids: idMapping(0, 1, 1)},
	} {
		if got, err := ParseUserNamespace(u); errkind.Of(err) != errkind.Invalid {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	for name, o := range map[string]*runtimeapi.NamespaceOption{
		"pid": {Pid: runtimeapi.NamespaceMode_NODE}, "ipc": {Ipc: runtimeapi.NamespaceMode_NODE},
	} {
		o.UsernsOptions = mapped(0, 1000, 1000).UsernsOptions
		if _, err := PodUserNamespace(o); errkind.Of(err) != errkind.Invalid || !strings.Contains(err.Error(), name) {
			t.Errorf("%s of the node: %v", name, err)
		}
	}
}

func TestContainerSpecRefuses(t *testing.T) {
	localhost := &profile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: "/x"}
	userns := func(m runtimeapi.NamespaceMode) *runtimeapi.NamespaceOption {
		return &runtimeapi.NamespaceOption{UsernsOptions: &runtimeapi.UserNamespace{Mode: m}}
	}
	mount := func(m *runtimeapi.Mount) func(*ContainerInput, *containerConfig, *securityContext) {
		return func(in *ContainerInput, c *containerConfig, _ *securityContext) {
			c.Mounts, in.Host.Mounts = []*runtimeapi.Mount{m}, []string{"/x"}
		}
	}
	limits := func(r *resources) func(*ContainerInput, *containerConfig, *securityContext) {
		return func(_ *ContainerInput, c *containerConfig, _ *securityContext) { c.Linux.Resources = r }
	}
	for _, c := range []struct {
		text string // must be in the error
		kind errkind.Kind
		f    func(in *ContainerInput, c *containerConfig, sc *securityContext)
	}{
		{"no command", errkind.Invalid, func(in *ContainerInput, c *containerConfig, sc *securityContext) { in.Image = nil }},
		{"no command", errkind.Invalid, func(in *ContainerInput, c *containerConfig, sc *securityContext) { c.Command = []string{""} }},
		{"null byte", errkind.Invalid, func(in *ContainerInput, c *containerConfig, sc *securityContext) { c.Args = []string{"a\x00"} }},
		{"envs", errkind.Invalid, func(in *ContainerInput, c *containerConfig, sc *securityContext) {
			c.Envs = []*runtimeapi.KeyValue{{Key: "A=B"}}
		}},
		{"envs", errkind.Invalid, func(in *ContainerInput, c *containerConfig, sc *securityContext) {
			c.Envs = []*runtimeapi.KeyValue{{Key: "A", Value: []byte{0}}}
		}},
		{"not privileged", errkind.Invalid, func(in *ContainerInput, c *containerConfig, sc *securityContext) { sc.Privileged = true }},
		{"userns_options", errkind.Invalid, func(in *ContainerInput, c *containerConfig, sc *securityContext) {
			sc.NamespaceOptions = userns(runtimeapi.NamespaceMode_POD)
		}},
		{"differ from the pod's", errkind.Invalid, func(in *ContainerInput, c *containerConfig, sc *securityContext) {
			sc.NamespaceOptions = mapped(0, 1000, 1000)
		}},
		{"differ from the pod's", errkind.Invalid, inUserNS(func(in *ContainerInput, c *containerConfig, sc *securityContext) {
			sc.NamespaceOptions = mapped(0, 1001, 1000)
		})},
		{"differ from the pod's", errkind.Invalid, inUserNS(func(in *ContainerInput, c *containerConfig, sc *securityContext) {
			sc.NamespaceOptions = userns(runtimeapi.NamespaceMode_NODE)
		})},
		{"the node's", errkind.Invalid, inUserNS(func(in *ContainerInput, c *containerConfig, sc *securityContext) {
			sc.NamespaceOptions = mapped(0, 1000, 1000)
			sc.NamespaceOptions.Pid = runtimeapi.NamespaceMode_NODE
		})},
		{"user 1000 is outside", errkind.Invalid, inUserNS(func(in *ContainerInput, c *containerConfig, sc *securityContext) {
			in.User.UID = 1000
		})},
		{"group 1000 is outside", errkind.Invalid, inUserNS(func(in *ContainerInput, c *containerConfig, sc *securityContext) {
			in.User.Groups = []uint32{0, 1000}
		})},
		{"need a pod with a user namespace", errkind.Invalid, mount(withIDs(&runtimeapi.Mount{ContainerPath: "/x"}, 5))},
		{"go together", errkind.Invalid, inUserNS(mount(&runtimeapi.Mount{ContainerPath: "/x", UidMappings: idMapping(0, 1, 1)}))},
		{"not a range", errkind.Invalid, inUserNS(mount(withIDs(&runtimeapi.Mount{ContainerPath: "/x"}, 0)))},
		{"those of the pod", errkind.Invalid, inUserNS(mount(withIDs(&runtimeapi.Mount{ContainerPath: "/x", Image: &runtimeapi.ImageSpec{Image: "i"}}, 5)))},
		{"can't map", errkind.Unsupported, func(in *ContainerInput, c *containerConfig, sc *securityContext) {
			inUserNS(mount(withIDs(&runtimeapi.Mount{ContainerPath: "/x"}, 5)))(in, c, sc)
			in.Can.IDMappedMounts = false
		}},
		{"recursively read-only", errkind.Unsupported, func(in *ContainerInput, c *containerConfig, sc *securityContext) {
			mount(&runtimeapi.Mount{ContainerPath: "/x", Readonly: true, RecursiveReadOnly: true})(in, c, sc)
			in.Can.RecursiveReadOnly = false
		}},
		{"an image needs private propagation", errkind.Invalid, mount(&runtimeapi.Mount{
			ContainerPath: "/x", Image: &runtimeapi.ImageSpec{Image: "i"}, Propagation: runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER,
		})},
		{"userns_options", errkind.Invalid, func(in *ContainerInput, c *containerConfig, sc *securityContext) {
			in.Sandbox.Linux.SecurityContext.NamespaceOptions = userns(runtimeapi.NamespaceMode_TARGET)
		}},
		{"CAP_NONSENSE", errkind.Invalid, func(in *ContainerInput, c *containerConfig, sc *securityContext) {
			sc.Capabilities = &runtimeapi.Capability{AddCapabilities: []string{"CAP_NONSENSE"}}
		}},
		{"nonsense", errkind.Invalid, func(in *ContainerInput, c *containerConfig, sc *securityContext) {
			sc.Capabilities = &runtimeapi.Capability{DropCapabilities: []string{"nonsense"}}
		}},
		{"CAP_SYS_TIME", errkind.Unsupported, func(in *ContainerInput, c *containerConfig, sc *securityContext) {
			sc.Capabilities = &runtimeapi.Capability{AddCapabilities: []string{"SYS_TIME"}}
		}},
		{"CAP_SYS_TIME", errkind.Unsupported, func(in *ContainerInput, c *containerConfig, sc *securityContext) {
			sc.Capabilities = &runtimeapi.Capability{AddAmbientCapabilities: []string{"SYS_TIME"}}
		}},
		{"below the root", errkind.Invalid, mount(&runtimeapi.Mount{ContainerPath: "/x/.."})},
		{"below the root", errkind.Invalid, mount(&runtimeapi.Mount{ContainerPath: "x"})},
		{"recursive_read_only", errkind.Invalid, mount(&runtimeapi.Mount{ContainerPath: "/x", RecursiveReadOnly: true})},
		{"recursive_read_only", errkind.Invalid, mount(&runtimeapi.Mount{
			ContainerPath: "/x", RecursiveReadOnly: true, Readonly: true,
			Propagation: runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL,
		})},
		{"propagation", errkind.Invalid, mount(&runtimeapi.Mount{ContainerPath: "/x", Propagation: 9})},
		{"remount", errkind.Invalid, mount(&runtimeapi.Mount{ContainerPath: "/x", MountOptions: []string{"remount"}})},
		{"was not found", errkind.Invalid, func(in *ContainerInput, c *containerConfig, sc *securityContext) {
			c.Mounts, in.Host.Mounts = []*runtimeapi.Mount{{ContainerPath: "/x"}}, []string{""}
		}},
		{"permissions", errkind.Invalid, func(in *ContainerInput, c *containerConfig, sc *securityContext) {
			c.Devices = []*runtimeapi.Device{{HostPath: "/dev/null", Permissions: "rx"}}
		}},
		{"no device", errkind.Invalid, func(in *ContainerInput, c *containerConfig, sc *securityContext) {
			c.Devices = []*runtimeapi.Device{{HostPath: "/dev/null"}}
		}},
		{"unified", errkind.Unsupported, limits(&resources{Unified: map[string]string{"memory.high": "1"}})},
		{"negative", errkind.Invalid, limits(&resources{CpuShares: -1})},
		{"memory_swap_limit", errkind.Invalid, limits(&resources{MemoryLimitInBytes: 2, MemorySwapLimitInBytes: 1})},
		{`"64KB"`, errkind.Invalid, limits(&resources{HugepageLimits: []*runtimeapi.HugepageLimit{{PageSize: "64KB", Limit: 1}}})},
		{"memory controller", errkind.Unsupported, func(in *ContainerInput, c *containerConfig, sc *securityContext) {
			c.Linux.Resources = &resources{MemoryLimitInBytes: 1}
			in.Node.CgroupControllers = map[string]bool{}
		}},
		{"limit swap", errkind.Unsupported, func(in *ContainerInput, c *containerConfig, sc *securityContext) {
			c.Linux.Resources = &resources{MemoryLimitInBytes: 1, MemorySwapLimitInBytes: 2}
			in.Node.SwapAccounting = false
		}},
		{"RLIMIT_X", errkind.Invalid, func(in *ContainerInput, c *containerConfig, sc *securityContext) {
			in.Rlimits = []rspec.POSIXRlimit{{Type: "RLIMIT_X"}}
		}},
		{"soft limit", errkind.Invalid, func(in *ContainerInput, c *containerConfig, sc *securityContext) {
			in.Rlimits = []rspec.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 2, Hard: 1}}
		}},
		{"masked_paths", errkind.Invalid, func(in *ContainerInput, c *containerConfig, sc *securityContext) { sc.MaskedPaths = []string{"x"} }},
		{"readonly_paths", errkind.Invalid, func(in *ContainerInput, c *containerConfig, sc *securityContext) { sc.ReadonlyPaths = []string{""} }},
		{"no seccomp", errkind.Unsupported, func(in *ContainerInput, c *containerConfig, sc *securityContext) {
			sc.Seccomp, in.Node.Seccomp = localhost, false
		}},
		{"not read", errkind.Invalid, func(in *ContainerInput, c *containerConfig, sc *securityContext) { sc.Seccomp = localhost }},
		{"seccomp profile /x", errkind.Invalid, func(in *ContainerInput, c *containerConfig, sc *securityContext) {
			sc.Seccomp, in.Host.Seccomp = localhost, []byte("{")
		}},
		{"profile type", errkind.Invalid, func(in *ContainerInput, c *containerConfig, sc *securityContext) {
			sc.Seccomp = &profile{ProfileType: 7}
		}},
		{"AppArmor", errkind.Unsupported, func(in *ContainerInput, c *containerConfig, sc *securityContext) { sc.Apparmor = localhost }},
		{"AppArmor", errkind.Unsupported, func(in *ContainerInput, c *containerConfig, sc *securityContext) {
			//lint:ignore SA1019 old clients still set it
			sc.ApparmorProfile = "localhost/x"
		}},
		{"without a name", errkind.Invalid, func(in *ContainerInput, c *containerConfig, sc *securityContext) {
			sc.Apparmor = &profile{ProfileType: runtimeapi.SecurityProfile_Localhost}
		}},
	} {
		_, err := ContainerSpec(change(c.f))
		if errkind.Of(err) != c.kind || !strings.Contains(err.Error(), c.text) {
			t.Errorf("want kind %v and %q, got %v: %v", c.kind, c.text, errkind.Of(err), err)
		}
	}
}
