package oci

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	imgspec "github.com/opencontainers/image-spec/specs-go/v1"
	rspec "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/internal/id"
	"github.com/gantry-cri/gantry/internal/node"
	"github.com/gantry-cri/gantry/internal/selinux"
)

var update = flag.Bool("update", false, "write the golden files anew")

type (
	containerConfig = runtimeapi.ContainerConfig
	securityContext = runtimeapi.LinuxContainerSecurityContext
	resources       = runtimeapi.LinuxContainerResources
	profile         = runtimeapi.SecurityProfile
)

const (
	podDigits = id.Pod("1111111111111111111111111111111111111111111111111111111111111111")
	ctrDigits = id.Container("2222222222222222222222222222222222222222222222222222222222222222")
)

// nodeV1 is a node with cgroup version 1, whose daemon lacks CAP_SYS_RESOURCE.
func nodeV1() node.Facts {
	return node.Facts{
		CgroupRoot: "/sys/fs/cgroup",
		CgroupV1:   map[string]string{"memory": "/sys/fs/cgroup/memory"},
		CgroupControllers: map[string]bool{
			"cpu": true, "cpuset": true, "memory": true, "pids": true, "hugetlb": true, "devices": true, "io": true,
		},
		SwapAccounting: true,
		HugepageSizes:  []string{"2MB", "1GB"},
		Bounding: append(slices.Clone(defaultCapabilities),
			"CAP_NET_ADMIN", "CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_BPF"),
		Rlimits: map[string]node.Rlimit{
			"RLIMIT_NOFILE": {Soft: 1024, Hard: 20000}, "RLIMIT_CORE": {Soft: 0, Hard: node.Unlimited},
		},
		Seccomp: true,
		Kernel:  "6.18.0",
	}
}

// nodeV2 is a node with cgroup version 2, AppArmor and every capability.
func nodeV2() node.Facts {
	n := nodeV1()
	n.CgroupV2, n.CgroupV1 = true, nil
	n.CanRaiseLimits, n.AppArmor = true, true
	n.Bounding = append(n.Bounding, "CAP_SYS_RESOURCE")
	return n
}

// input is a request for the plainest container of a pod.
func input(n node.Facts) ContainerInput {
	return ContainerInput{
		ID: ctrDigits, PodID: podDigits,
		Config: &containerConfig{
			Metadata: &runtimeapi.ContainerMetadata{Name: "web"},
			Linux:    &runtimeapi.LinuxContainerConfig{SecurityContext: &securityContext{}},
		},
		Sandbox: &runtimeapi.PodSandboxConfig{
			Metadata: &runtimeapi.PodSandboxMetadata{Name: "pod", Namespace: "default", Uid: "uid-1"},
			Linux:    &runtimeapi.LinuxPodSandboxConfig{SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{}},
		},
		Image: &imgspec.ImageConfig{
			Entrypoint: []string{"/entrypoint"}, Cmd: []string{"cmd", "arg"}, WorkingDir: "/srv",
			Env: []string{"PATH=/usr/bin", "FROM=image", "BOTH=image", "EMPTY=", "novalue"},
		},
		ImageName: "docker.io/library/web:1",
		User:      User{Groups: []uint32{0}, Home: "/root", Name: "root"},
		Node:      n,
		RootFS:    "/run/gantry/rootfs",
		Join: Namespaces{
			Network: "/run/gantry/netns", IPC: "/proc/42/ns/ipc", UTS: "/proc/42/ns/uts",
		},
		CgroupsPath: "/gantry/pod/ctr",
		ResolvConf:  "/run/gantry/resolv.conf", Hostname: "/run/gantry/hostname", Hosts: "/run/gantry/hosts",
		Shm: "/run/gantry/shm", HostnameValue: "pod", OCIVersion: "1.0.2", PidsLimit: 1000, AppArmorDefault: "gantry-default",
		Can: Abilities{RecursiveReadOnly: true, IDMappedMounts: true},
	}
}

// change returns an input of a version 1 node that f has changed.
func change(f func(in *ContainerInput, c *containerConfig, sc *securityContext)) ContainerInput {
	return changed(nodeV1(), f)
}

func changed(n node.Facts, f func(in *ContainerInput, c *containerConfig, sc *securityContext)) ContainerInput {
	in := input(n)
	f(&in, in.Config, in.Config.GetLinux().GetSecurityContext())
	return in
}

func ptr[T any](v T) *T { return &v }

var goldenContainers = map[string]ContainerInput{
	"default-v1": input(nodeV1()),
	"default-v2": input(nodeV2()),
	"privileged": change(func(in *ContainerInput, c *containerConfig, sc *securityContext) {
		sc.Privileged = true
		sc.MaskedPaths = []string{"/proc/kcore"}
		sc.Seccomp = &profile{}
		sc.Capabilities = &runtimeapi.Capability{DropCapabilities: []string{"ALL"}}
		in.Sandbox.Linux.SecurityContext.Privileged = true
		in.Host.AllDevices = []rspec.LinuxDevice{{Path: "/dev/loop0", Type: "b", Major: 7}}
	}),
	"privileged-v2": changed(nodeV2(), func(in *ContainerInput, c *containerConfig, sc *securityContext) {
		sc.Privileged = true
		in.Sandbox.Linux.SecurityContext.Privileged = true
		c.Devices = []*runtimeapi.Device{{HostPath: "/dev/fuse"}}
		in.Host.Devices = [][]rspec.LinuxDevice{{{Path: "/dev/fuse", Type: "c", Major: 10, Minor: 229}}}
	}),
	"host-namespaces": change(func(in *ContainerInput, c *containerConfig, sc *securityContext) {
		in.Join = Namespaces{Network: Host, IPC: Host, UTS: Host, PID: Host}
		in.Shm = "/dev/shm"
	}),
	"pod-pid":    change(func(in *ContainerInput, c *containerConfig, sc *securityContext) { in.Join.PID = "/proc/42/ns/pid" }),
	"target-pid": change(func(in *ContainerInput, c *containerConfig, sc *securityContext) { in.Join.PID = "/proc/4711/ns/pid" }),
	"own-everything": change(func(in *ContainerInput, c *containerConfig, sc *securityContext) {
		in.Join = Namespaces{}
		in.Shm, in.ResolvConf, in.Hosts, in.Hostname = "", "", "", ""
	}),
	"user": change(func(in *ContainerInput, c *containerConfig, sc *securityContext) {
		in.User = User{UID: 1000, GID: 2000, Groups: []uint32{2000, 10, 50}, Home: "/home/app", Name: "app"}
		sc.ReadonlyRootfs, sc.NoNewPrivs = true, true
	}),
	"capabilities": change(func(in *ContainerInput, c *containerConfig, sc *securityContext) {
		sc.Capabilities = &runtimeapi.Capability{
			AddCapabilities:  []string{"SYS_ADMIN", "cap_net_admin"},
			DropCapabilities: []string{"CHOWN", "CAP_MKNOD", "SYS_TIME"},
		}
	}),
	"capabilities-all-but": change(func(in *ContainerInput, c *containerConfig, sc *securityContext) {
		sc.Capabilities = &runtimeapi.Capability{AddCapabilities: []string{"ALL"}, DropCapabilities: []string{"SYS_ADMIN"}}
	}),
	"capabilities-only": change(func(in *ContainerInput, c *containerConfig, sc *securityContext) {
		sc.Capabilities = &runtimeapi.Capability{AddCapabilities: []string{"NET_BIND_SERVICE"}, DropCapabilities: []string{"all"}}
	}),
	"capabilities-ambient": change(func(in *ContainerInput, c *containerConfig, sc *securityContext) {
		in.User = User{UID: 1000, GID: 1000, Groups: []uint32{1000}, Home: "/"}
		sc.Capabilities = &runtimeapi.Capability{
			AddAmbientCapabilities: []string{"NET_BIND_SERVICE", "NET_ADMIN"}, DropCapabilities: []string{"ALL"},
		}
	}),
	"process": change(func(in *ContainerInput, c *containerConfig, sc *securityContext) {
		c.Command, c.Args, c.WorkingDir, c.Tty = []string{"sh", "-c"}, []string{"echo hi"}, "../tmp/./x", true
		c.Envs = []*runtimeapi.KeyValue{
			{Key: "BOTH", Value: []byte("request")}, {Key: "HOME", Value: []byte("/elsewhere")},
			{Key: "X", Value: []byte("a=b\nc")}, {Key: "HOSTNAME", Value: nil},
		}
		in.Rlimits = []rspec.POSIXRlimit{
			{Type: "RLIMIT_NOFILE", Soft: 1 << 20, Hard: 1 << 20}, {Type: "RLIMIT_CORE", Soft: 0, Hard: node.Unlimited},
		}
		c.Annotations = map[string]string{
			"example.com/a": "b", "run.oci.hooks.stdout": "/etc/passwd", "io.kubernetes.cri.container-type": "sandbox",
			"dev.gvisor.spec.x": "kept",
		}
		in.Options.AllowedAnnotations = []string{"dev.gvisor.spec."}
	}),
	"mounts": change(func(in *ContainerInput, c *containerConfig, sc *securityContext) {
		c.Mounts = []*runtimeapi.Mount{
			{ContainerPath: "/data/deep/er", HostPath: "/x"},
			{ContainerPath: "/data", HostPath: "/x", Readonly: true},
			{ContainerPath: "/rro", HostPath: "/x", Readonly: true, RecursiveReadOnly: true, SelinuxRelabel: true},
			{ContainerPath: "/slave", HostPath: "/x", Propagation: runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER},
			{ContainerPath: "/etc/hosts", HostPath: "/x", MountOptions: []string{"noexec", "nosuid"}},
			{ContainerPath: "/dev/shm/", HostPath: "/x"},
		}
		in.Host.Mounts = []string{"/real/1", "/real/2", "/real/3", "/real/4", "/real/5", "/real/6"}
	}),
	"userns": change(inUserNS(func(in *ContainerInput, c *containerConfig, sc *securityContext) {
		sc.NamespaceOptions = mapped(0, 1000, 1000)
		c.Mounts = []*runtimeapi.Mount{
			withIDs(&runtimeapi.Mount{ContainerPath: "/v", HostPath: "/x"}, 1000),
			withIDs(&runtimeapi.Mount{ContainerPath: "/i", Image: &runtimeapi.ImageSpec{Image: "i"}, ImageSubPath: "sub"}, 1000),
		}
		in.Host.Mounts = []string{"/real/1", "/run/gantry/volumes/1/sub"}
	})),
	"userns-host-network": change(inUserNS(func(in *ContainerInput, c *containerConfig, sc *securityContext) {
		in.Join.Network, in.Join.UTS = Host, Host
	})),
	"mounts-of-the-node": change(func(in *ContainerInput, c *containerConfig, sc *securityContext) {
		c.Mounts = []*runtimeapi.Mount{
			{ContainerPath: "/dev", HostPath: "/dev"},
			{ContainerPath: "/sys", HostPath: "/sys"},
			{ContainerPath: "/var/lib/kubelet", HostPath: "/k", Propagation: runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL},
			{ContainerPath: "/devices", HostPath: "/dev"},
		}
		in.Host.Mounts = []string{"/dev", "/sys", "/k", "/dev"}
	}),
	"devices": change(func(in *ContainerInput, c *containerConfig, sc *securityContext) {
		c.Devices = []*runtimeapi.Device{
			{HostPath: "/dev/fuse", ContainerPath: "/dev/fuse", Permissions: "rw"}, {HostPath: "/dev/snd"},
		}
		in.Host.Devices = [][]rspec.LinuxDevice{
			{{Path: "/dev/fuse", Type: "c", Major: 10, Minor: 229, FileMode: ptr(os.FileMode(0o666)), UID: ptr(uint32(0)), GID: ptr(uint32(0))}},
			{{Path: "/dev/snd/a", Type: "c", Major: 116, Minor: 1}, {Path: "/dev/snd/b", Type: "b", Major: 116, Minor: 2}},
		}
	}),
	"resources-v1": change(func(in *ContainerInput, c *containerConfig, sc *securityContext) {
		c.Linux.Resources = &resources{
			CpuPeriod: 100000, CpuQuota: -1, CpuShares: 512, CpusetCpus: "0-1", CpusetMems: "0",
			MemoryLimitInBytes: 1 << 20, OomScoreAdj: -997,
			HugepageLimits: []*runtimeapi.HugepageLimit{{PageSize: "2MB", Limit: 4 << 20}, {PageSize: "64KB", Limit: 0}},
		}
		in.PidsLimit = 0
	}),
	"resources-v2": changed(nodeV2(), func(in *ContainerInput, c *containerConfig, sc *securityContext) {
		c.Linux.Resources = &resources{
			CpuQuota: 50000, MemoryLimitInBytes: 1 << 20, MemorySwapLimitInBytes: 3 << 20, OomScoreAdj: -997,
			Unified: map[string]string{"memory.high": "900000", "io.weight": "default 100"},
		}
	}),
	"seccomp-default": change(func(in *ContainerInput, c *containerConfig, sc *securityContext) { sc.Seccomp = &profile{} }),
	"seccomp-localhost": change(func(in *ContainerInput, c *containerConfig, sc *securityContext) {
		sc.Seccomp = &profile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: "/profile.json"}
		in.Host.Seccomp = []byte(`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
			{"names":["chmod"],"action":"SCMP_ACT_ERRNO","excludes":{"caps":["CAP_CHOWN"]}},
			{"names":["mount"],"action":"SCMP_ACT_ERRNO","errnoRet":1,"excludes":{"caps":["CAP_SYS_ADMIN"]}}]}`)
	}),
	"confined-paths": changed(nodeV2(), func(in *ContainerInput, c *containerConfig, sc *securityContext) {
		sc.MaskedPaths, sc.ReadonlyPaths = []string{"/bin/ls"}, nil
		sc.Apparmor = &profile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: "localhost/strict"}
		sc.SelinuxOptions = &runtimeapi.SELinuxOption{Type: "spc_t", Level: "s0"}
	}),
	"old-profile-fields": changed(nodeV2(), func(in *ContainerInput, c *containerConfig, sc *securityContext) {
		//lint:ignore SA1019 old clients still set it
		sc.ApparmorProfile, sc.SeccompProfilePath = "unconfined", "unconfined"
		sc.ReadonlyPaths = []string{"/proc/sys"}
	}),
}

func TestContainerSpec(t *testing.T) {
	for name, in := range goldenContainers {
		t.Run(name, func(t *testing.T) {
			spec, err := ContainerSpec(in)
			if err != nil {
				t.Fatal(err)
			}
			checkGolden(t, "container-"+name, spec)
			again, err := ContainerSpec(in)
			if diff := cmp.Diff(spec, again); err != nil || diff != "" {
				t.Errorf("the second result differs: %v\n%s", err, diff)
			}
		})
	}
}

// checkGolden compares spec with its golden file. The rules of the built-in
// seccomp profile are left out: they are moby's, and hundreds.
func checkGolden(t *testing.T, name string, spec *rspec.Spec) {
	t.Helper()
	short := *spec
	if s := spec.Linux.Seccomp; s != nil && len(s.Syscalls) > 5 {
		linux, filter := *spec.Linux, *s
		filter.Syscalls = []rspec.LinuxSyscall{{Names: []string{"(the default profile)"}}}
		linux.Seccomp, short.Linux = &filter, &linux
	}
	got, err := json.MarshalIndent(&short, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	path := filepath.Join("testdata", name+".json")
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (run with -update if this is meant):\n%s", path, diff)
	}
}

func TestCommandLine(t *testing.T) {
	image := &imgspec.ImageConfig{Entrypoint: []string{"E", "e"}, Cmd: []string{"C", "c"}}
	for _, c := range []struct {
		command, args []string
		image         *imgspec.ImageConfig
		want          string
	}{
		{nil, nil, image, "E e C c"},
		{nil, []string{"a"}, image, "E e a"},
		{[]string{"x", "y"}, nil, image, "x y"},
		{[]string{"x"}, []string{"a", "b"}, image, "x a b"},
		{nil, nil, &imgspec.ImageConfig{Cmd: []string{"C"}}, "C"},
		{nil, []string{"a"}, &imgspec.ImageConfig{Cmd: []string{"C"}}, "a"},
		{[]string{"x"}, nil, nil, "x"},
	} {
		got, err := commandLine(ContainerInput{Config: &containerConfig{Command: c.command, Args: c.args}, Image: c.image})
		if err != nil || strings.Join(got, " ") != c.want {
			t.Errorf("command %q, args %q: %q, %v; want %q", c.command, c.args, got, err, c.want)
		}
	}
}

// TestDefaultSeccomp checks that the profile follows the capabilities.
func TestDefaultSeccomp(t *testing.T) {
	allows := func(name string, sc *securityContext) bool {
		in := change(func(in *ContainerInput, c *containerConfig, _ *securityContext) { c.Linux.SecurityContext = sc })
		spec, err := ContainerSpec(in)
		if err != nil {
			t.Fatal(err)
		}
		return slices.ContainsFunc(spec.Linux.Seccomp.Syscalls, func(s rspec.LinuxSyscall) bool {
			return s.Action == rspec.ActAllow && len(s.Args) == 0 && slices.Contains(s.Names, name)
		})
	}
	admin := &securityContext{Seccomp: &profile{}, Capabilities: &runtimeapi.Capability{AddCapabilities: []string{"SYS_ADMIN"}}}
	if plain := (&securityContext{Seccomp: &profile{}}); !allows("openat", plain) || allows("mount", plain) || allows("bpf", plain) {
		t.Error("the default profile is not the default")
	}
	if !allows("mount", admin) {
		t.Error("CAP_SYS_ADMIN does not allow mount")
	}
	in := change(func(in *ContainerInput, c *containerConfig, sc *securityContext) {
		sc.Seccomp, in.Node.Seccomp = &profile{}, false
	})
	if spec, err := ContainerSpec(in); err != nil || spec.Linux.Seccomp != nil {
		t.Errorf("without seccomp in the kernel: %v", err)
	}
	in = change(func(in *ContainerInput, c *containerConfig, sc *securityContext) {
		sc.Seccomp, in.Host.Seccomp = &profile{}, []byte(`{"defaultAction":"SCMP_ACT_LOG"}`)
	})
	if spec, err := ContainerSpec(in); err != nil || spec.Linux.Seccomp.DefaultAction != rspec.ActLog {
		t.Errorf("a profile of the configuration is not used: %v", err)
	}
}

func BenchmarkContainerSpec(b *testing.B) {
	in := change(func(in *ContainerInput, c *containerConfig, sc *securityContext) { sc.Seccomp = &profile{} })
	dir := b.TempDir()
	for b.Loop() {
		spec, err := ContainerSpec(in)
		if err != nil {
			b.Fatal(err)
		}
		if err := WriteBundle(dir, spec); err != nil {
			b.Fatal(err)
		}
	}
}

// TestSELinuxLabels: both labels are in the specification of a container, also
// of a privileged one, and of the pause container.
func TestSELinuxLabels(t *testing.T) {
	n := nodeV1()
	n.SELinux = true
	labels := selinux.Labels{Process: "system_u:system_r:container_t:s0:c1,c2", Mount: "system_u:object_r:container_file_t:s0:c1,c2"}
	for name, f := range map[string]func(in *ContainerInput, c *containerConfig, sc *securityContext){
		"nothing asked": func(*ContainerInput, *containerConfig, *securityContext) {},
		"options": func(in *ContainerInput, c *containerConfig, sc *securityContext) {
			sc.SelinuxOptions = &runtimeapi.SELinuxOption{Level: "s0:c1,c2"}
		},
		"privileged": func(in *ContainerInput, c *containerConfig, sc *securityContext) {
			sc.Privileged = true
			in.Sandbox.Linux.SecurityContext.Privileged = true
		},
		"relabel": func(in *ContainerInput, c *containerConfig, sc *securityContext) {
			c.Mounts = []*runtimeapi.Mount{{ContainerPath: "/x", HostPath: "/x", SelinuxRelabel: true}}
			in.Host.Mounts = []string{"/x"}
		},
	} {
		in := changed(n, f)
		in.SELinux = labels
		spec, err := ContainerSpec(in)
		if err != nil || spec.Process.SelinuxLabel != labels.Process || spec.Linux.MountLabel != labels.Mount {
			t.Errorf("%s: %v, %v", name, err, spec)
		}
	}
	in := sandboxInput(func(in *SandboxInput, c *runtimeapi.LinuxPodSandboxConfig, sc *sandboxContext) {
		in.Node, in.SELinux = n, labels
		sc.SelinuxOptions = &runtimeapi.SELinuxOption{Role: "r"}
	})
	spec, err := SandboxSpec(in)
	if err != nil || spec.Process.SelinuxLabel != labels.Process || spec.Linux.MountLabel != labels.Mount {
		t.Errorf("pause: %v, %v", err, spec)
	}
}
