package oci

import (
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/internal/errkind"
)

type sandboxContext = runtimeapi.LinuxSandboxSecurityContext

func sandboxInput(f func(in *SandboxInput, c *runtimeapi.LinuxPodSandboxConfig, sc *sandboxContext)) SandboxInput {
	in := SandboxInput{
		ID: podDigits,
		Config: &runtimeapi.PodSandboxConfig{
			Metadata: &runtimeapi.PodSandboxMetadata{Name: "pod", Namespace: "default", Uid: "uid-1"},
			Linux:    &runtimeapi.LinuxPodSandboxConfig{SecurityContext: &sandboxContext{}},
			Annotations: map[string]string{
				"example.com/a": "b", "run.oci.handler": "krun", "io.kubernetes.cri.sandbox-id": "x",
			},
		},
		Node: nodeV1(), RootFS: "/var/lib/gantry/bin/pause-rootfs", Args: []string{"/pause"},
		NetNS: "/run/gantry/netns", CgroupsPath: "/gantry/pod/pause", OCIVersion: "1.0.0", Hostname: "pod",
	}
	f(&in, in.Config.GetLinux(), in.Config.GetLinux().GetSecurityContext())
	return in
}

var goldenSandboxes = map[string]SandboxInput{
	"default": sandboxInput(func(*SandboxInput, *runtimeapi.LinuxPodSandboxConfig, *sandboxContext) {}),
	"host": sandboxInput(func(in *SandboxInput, c *runtimeapi.LinuxPodSandboxConfig, sc *sandboxContext) {
		in.NetNS, in.Node = Host, nodeV2()
		node := runtimeapi.NamespaceMode_NODE
		sc.NamespaceOptions = &runtimeapi.NamespaceOption{
			Network: node, Pid: node, Ipc: node, UsernsOptions: &runtimeapi.UserNamespace{Mode: node},
		}
		sc.Privileged = true
	}),
	"sysctls": sandboxInput(func(in *SandboxInput, c *runtimeapi.LinuxPodSandboxConfig, sc *sandboxContext) {
		c.Sysctls = map[string]string{"net.ipv4.ip_forward": "1", "kernel/shm_rmid_forced": "1", "fs.mqueue.msg_max": "20"}
		sc.Seccomp = &profile{}
		in.ShmSize, in.Env, in.Cwd = 1<<20, []string{"A=b"}, "x"
	}),
	"userns": sandboxInput(func(in *SandboxInput, c *runtimeapi.LinuxPodSandboxConfig, sc *sandboxContext) {
		sc.NamespaceOptions, in.NewNetNS = mapped(0, 1000, 1000), true
	}),
	"userns-host-network": sandboxInput(func(in *SandboxInput, c *runtimeapi.LinuxPodSandboxConfig, sc *sandboxContext) {
		sc.NamespaceOptions, in.NetNS = mapped(0, 1000, 1000), Host
	}),
}

func TestSandboxSpec(t *testing.T) {
	for name, in := range goldenSandboxes {
		t.Run(name, func(t *testing.T) {
			spec, err := SandboxSpec(in)
			if err != nil {
				t.Fatal(err)
			}
			checkGolden(t, "sandbox-"+name, spec)
		})
	}
}

func TestSandboxSpecRefuses(t *testing.T) {
	for _, c := range []struct {
		text string
		kind errkind.Kind
		f    func(in *SandboxInput, c *runtimeapi.LinuxPodSandboxConfig, sc *sandboxContext)
	}{
		{"no command", errkind.Invalid, func(in *SandboxInput, c *runtimeapi.LinuxPodSandboxConfig, sc *sandboxContext) { in.Args = nil }},
		{"kernel.msgmax", errkind.Invalid, func(in *SandboxInput, c *runtimeapi.LinuxPodSandboxConfig, sc *sandboxContext) {
			c.Sysctls = map[string]string{"kernel.msgmax": "1"}
			sc.NamespaceOptions = &runtimeapi.NamespaceOption{Ipc: runtimeapi.NamespaceMode_NODE}
		}},
		{"userns_options", errkind.Invalid, func(in *SandboxInput, c *runtimeapi.LinuxPodSandboxConfig, sc *sandboxContext) {
			sc.NamespaceOptions = &runtimeapi.NamespaceOption{UsernsOptions: &runtimeapi.UserNamespace{}}
		}},
		{"AppArmor", errkind.Unsupported, func(in *SandboxInput, c *runtimeapi.LinuxPodSandboxConfig, sc *sandboxContext) {
			sc.Apparmor = &profile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: "x"}
		}},
	} {
		_, err := SandboxSpec(sandboxInput(c.f))
		if errkind.Of(err) != c.kind || !strings.Contains(err.Error(), c.text) {
			t.Errorf("want kind %v and %q, got %v: %v", c.kind, c.text, errkind.Of(err), err)
		}
	}
}

func TestCheckSysctl(t *testing.T) {
	own, hostNet, hostIPC := sysctlScope{}, sysctlScope{hostNetwork: true}, sysctlScope{hostIPC: true}
	for _, c := range []struct {
		name  string
		scope sysctlScope
		want  string // "" is refused
	}{
		{"net.core.somaxconn", own, "net.core.somaxconn"},
		{"net.core.somaxconn", hostIPC, "net.core.somaxconn"},
		{"net.core.somaxconn", hostNet, ""},
		{"net/ipv4/ip_forward", own, "net.ipv4.ip_forward"},
		{"net/ipv4/ip_forward", hostNet, ""},
		{"net/ipv4/conf/eth0.100/rp_filter", own, "net/ipv4/conf/eth0.100/rp_filter"},
		{"net.ipv4.conf.eth0/100.rp_filter", own, "net.ipv4.conf.eth0/100.rp_filter"},
		{"kernel.shmmax", own, "kernel.shmmax"},
		{"kernel.shmmax", hostNet, "kernel.shmmax"},
		{"kernel.shmmax", hostIPC, ""},
		{"kernel/sem", hostIPC, ""},
		{"fs.mqueue.msg_max", own, "fs.mqueue.msg_max"},
		{"fs.mqueue.msg_max", hostIPC, ""},
		{"kernel.domainname", own, "kernel.domainname"},
		{"kernel.domainname", hostNet, ""},
		{"kernel.core_pattern", own, ""},
		{"kernel.hostname", own, ""},
		{"vm.overcommit_memory", own, ""},
		{"fs.file-max", own, ""},
		{"net", own, ""},
		{"network.x", own, ""},
		{"kernel.shmmax.x", own, ""},
		{"net/../kernel/core_pattern", own, ""},
		{"net..x", own, ""},
		{"net.ipv4 x", own, ""},
		{"", own, ""},
		{"..", own, ""},
		{"/", own, ""},
	} {
		got, err := checkSysctl(c.name, c.scope)
		if got != c.want || (err == nil) != (c.want != "") || err != nil && errkind.Of(err) != errkind.Invalid {
			t.Errorf("%q with %+v: %q, %v; want %q", c.name, c.scope, got, err, c.want)
		}
	}
}
