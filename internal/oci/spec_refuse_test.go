package oci

import (
	"strings"
	"testing"

	rspec "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/internal/errkind"
)

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
		{"userns_options", errkind.Unsupported, func(in *ContainerInput, c *containerConfig, sc *securityContext) {
			sc.NamespaceOptions = userns(runtimeapi.NamespaceMode_POD)
		}},
		{"userns_options", errkind.Invalid, func(in *ContainerInput, c *containerConfig, sc *securityContext) {
			in.Sandbox.Linux.SecurityContext.NamespaceOptions = userns(runtimeapi.NamespaceMode_TARGET)
		}},
		{"CDI", errkind.Unsupported, func(in *ContainerInput, c *containerConfig, sc *securityContext) {
			c.CDIDevices = []*runtimeapi.CDIDevice{{Name: "vendor.com/gpu=0"}}
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
		{"id mappings", errkind.Unsupported, mount(&runtimeapi.Mount{ContainerPath: "/x", UidMappings: []*runtimeapi.IDMapping{{}}})},
		{"image mounts", errkind.Unsupported, func(in *ContainerInput, c *containerConfig, sc *securityContext) {
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
		{"SELinux", errkind.Unsupported, func(in *ContainerInput, c *containerConfig, sc *securityContext) {
			sc.SelinuxOptions = &runtimeapi.SELinuxOption{Level: "s0:c1,c2"}
		}},
	} {
		_, err := ContainerSpec(change(c.f))
		if errkind.Of(err) != c.kind || !strings.Contains(err.Error(), c.text) {
			t.Errorf("want kind %v and %q, got %v: %v", c.kind, c.text, errkind.Of(err), err)
		}
	}
}
