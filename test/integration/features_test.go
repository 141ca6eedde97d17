package integration

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/test/testenv"
)

func wantContains(t *testing.T, what, got, want string) {
	t.Helper()
	if !strings.Contains(got, want) {
		t.Errorf("%s: %q does not contain %q", what, got, want)
	}
}

// runIn runs a pod of the configuration with one sleeping container.
func runIn(env *testenv.Env, config *runtimeapi.PodSandboxConfig, name string) (pod, container string) {
	pod = env.RunPod(config)
	return pod, env.Run(pod, env.ContainerConfig(name, "sleep 1000"), config)
}

// TestNames: hostname, resolv.conf, hosts.
func TestNames(t *testing.T) {
	each(t, func(t *testing.T, env *testenv.Env) {
		env.Pull(testenv.Busybox)
		config := env.PodConfig("pod")
		config.Hostname = "some-host"
		config.DnsConfig = &runtimeapi.DNSConfig{
			Servers: []string{"10.1.2.3", "10.1.2.4"}, Searches: []string{"a.test", "b.test"}, Options: []string{"ndots:4"},
		}
		pod, id := runIn(env, config, "main")
		wantEqual(t, "hostname", env.Exec(id, "hostname"), "some-host\n")
		wantEqual(t, "/etc/hostname", env.Exec(id, "cat /etc/hostname"), "some-host\n")
		resolv := env.Exec(id, "cat /etc/resolv.conf")
		for _, line := range []string{"nameserver 10.1.2.3\n", "nameserver 10.1.2.4\n", "search a.test b.test\n", "options ndots:4\n"} {
			wantContains(t, "resolv.conf", resolv, line)
		}
		hosts := env.Exec(id, "cat /etc/hosts")
		wantContains(t, "hosts", hosts, "localhost")
		if !testenv.Peer() {
			wantContains(t, "hosts", hosts, env.PodStatus(pod).Network.Ip)
			wantContains(t, "hosts", hosts, "some-host")
		}
	})
}

// TestNodeDNS: without a DNS configuration a pod gets the node's.
func TestNodeDNS(t *testing.T) {
	each(t, func(t *testing.T, env *testenv.Env) {
		env.Pull(testenv.Busybox)
		_, id := runIn(env, env.PodConfig("pod"), "main")
		node, err := os.ReadFile("/etc/resolv.conf")
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(node)) {
			if strings.HasPrefix(line, "nameserver ") {
				wantContains(t, "resolv.conf", env.Exec(id, "cat /etc/resolv.conf"), strings.TrimSpace(line))
			}
		}
	})
}

// TestSharedNamespaces: network, IPC and /dev/shm are the pod's; PIDs are the
// container's own unless the pod shares them.
func TestSharedNamespaces(t *testing.T) {
	each(t, func(t *testing.T, env *testenv.Env) {
		env.Pull(testenv.Busybox)
		config := env.PodConfig("pod")
		namespaces := &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER}
		config.Linux.SecurityContext = &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: namespaces}
		pod := env.RunPod(config)
		run := func(name string) string {
			c := env.ContainerConfig(name, "sleep 1000")
			c.Linux.SecurityContext = &runtimeapi.LinuxContainerSecurityContext{NamespaceOptions: namespaces}
			return env.Run(pod, c, config)
		}
		a, b := run("a"), run("b")
		env.Exec(a, "echo hello > /dev/shm/file")
		wantEqual(t, "/dev/shm of the other", env.Exec(b, "cat /dev/shm/file"), "hello\n")
		for _, ns := range []string{"net", "ipc", "uts"} {
			wantEqual(t, ns, env.Exec(a, "readlink /proc/self/ns/"+ns), env.Exec(b, "readlink /proc/self/ns/"+ns))
		}
		for _, ns := range []string{"pid", "mnt"} {
			if env.Exec(a, "readlink /proc/self/ns/"+ns) == env.Exec(b, "readlink /proc/self/ns/"+ns) {
				t.Errorf("both containers have the same %s namespace", ns)
			}
		}
		wantContains(t, "PID 1 of a container", env.Exec(a, "cat /proc/1/cmdline"), "sleep")
		wantContains(t, "size of /dev/shm", env.Exec(a, "df -m /dev/shm | tail -1"), "64")
	})
}

// TestSharedPID: with pod PIDs each container sees the other's processes, and
// pause is the first.
func TestSharedPID(t *testing.T) {
	each(t, func(t *testing.T, env *testenv.Env) {
		env.Pull(testenv.Busybox)
		config := env.PodConfig("pod")
		namespaces := &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_POD}
		config.Linux.SecurityContext = &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: namespaces}
		pod := env.RunPod(config)
		run := func(name, script string) string {
			c := env.ContainerConfig(name, script)
			c.Linux.SecurityContext = &runtimeapi.LinuxContainerSecurityContext{NamespaceOptions: namespaces}
			return env.Run(pod, c, config)
		}
		run("a", "exec sleep 1234")
		b := run("b", "exec sleep 5678")
		wantContains(t, "processes", env.Exec(b, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"), "sleep 1234")
		if !testenv.Peer() {
			wantContains(t, "the first process", env.Exec(b, "tr '\\0' ' ' </proc/1/cmdline"), "/pause")
		}
	})
}

// TestHostNamespaces: network, PID and IPC of the node.
func TestHostNamespaces(t *testing.T) {
	each(t, func(t *testing.T, env *testenv.Env) {
		env.Pull(testenv.Busybox)
		config := env.PodConfig("pod")
		config.Hostname = ""
		namespaces := &runtimeapi.NamespaceOption{
			Network: runtimeapi.NamespaceMode_NODE, Pid: runtimeapi.NamespaceMode_NODE, Ipc: runtimeapi.NamespaceMode_NODE,
		}
		config.Linux.SecurityContext = &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: namespaces}
		pod := env.RunPod(config)
		c := env.ContainerConfig("main", "sleep 1000")
		c.Linux.SecurityContext = &runtimeapi.LinuxContainerSecurityContext{NamespaceOptions: namespaces}
		id := env.Run(pod, c, config)
		for _, ns := range []string{"net", "pid", "ipc"} {
			own, err := os.Readlink("/proc/self/ns/" + ns)
			if err != nil {
				t.Fatal(err)
			}
			wantEqual(t, ns, strings.TrimSpace(env.Exec(id, "readlink /proc/self/ns/"+ns)), own)
		}
		host, err := os.Hostname()
		if err != nil {
			t.Fatal(err)
		}
		wantEqual(t, "hostname", strings.TrimSpace(env.Exec(id, "hostname")), host)
		env.Exec(id, "test $(ls /dev/shm | wc -l) -ge 0")
	})
}

// TestSysctls: of the pod's namespaces, in every container of it.
func TestSysctls(t *testing.T) {
	each(t, func(t *testing.T, env *testenv.Env) {
		env.Pull(testenv.Busybox)
		config := env.PodConfig("pod")
		config.Linux.Sysctls = map[string]string{"net.ipv4.ip_local_port_range": "2000 3000", "kernel.shm_rmid_forced": "1"}
		_, id := runIn(env, config, "main")
		wantEqual(t, "sysctls", env.Exec(id, "cat /proc/sys/net/ipv4/ip_local_port_range /proc/sys/kernel/shm_rmid_forced"), "2000\t3000\n1\n")
	})
}

// TestReadOnlyRootFS: nothing but mounts can be written to.
func TestReadOnlyRootFS(t *testing.T) {
	withPod(t, func(t *testing.T, env *testenv.Env, pod string, podConfig *runtimeapi.PodSandboxConfig) {
		config := env.ContainerConfig("main", "sleep 1000")
		config.Linux.SecurityContext = &runtimeapi.LinuxContainerSecurityContext{ReadonlyRootfs: true}
		id := env.Run(pod, config, podConfig)
		wantEqual(t, "writes", env.Exec(id, "touch /file /tmp/file 2>/dev/null || echo refused; touch /dev/shm/file && echo shm"), "refused\nshm\n")
	})
}

// TestWritableLayers: containers of one image don't see each other's files.
func TestWritableLayers(t *testing.T) {
	withPod(t, func(t *testing.T, env *testenv.Env, pod string, podConfig *runtimeapi.PodSandboxConfig) {
		a := env.Run(pod, env.ContainerConfig("a", "sleep 1000"), podConfig)
		b := env.Run(pod, env.ContainerConfig("b", "sleep 1000"), podConfig)
		env.Exec(a, "echo mine > /file; rm /bin/ls")
		wantEqual(t, "the other's view", env.Exec(b, "test -e /file || echo none; test -e /bin/ls && echo ls"), "none\nls\n")
	})
}

// TestSandboxUser: the process that holds the pod's namespaces runs as asked.
func TestSandboxUser(t *testing.T) {
	each(t, func(t *testing.T, env *testenv.Env) {
		notForPeers(t)
		env.Pull(testenv.Busybox)
		config := env.PodConfig("pod")
		config.Linux.SecurityContext = &runtimeapi.LinuxSandboxSecurityContext{
			RunAsUser: &runtimeapi.Int64Value{Value: 1234}, RunAsGroup: &runtimeapi.Int64Value{Value: 2345}, SupplementalGroups: []int64{3456},
		}
		pod, _ := runIn(env, config, "main")
		status := readProc(t, pausePID(t, env, pod), "status")
		wantContains(t, "user", status, "Uid:\t1234\t1234\t1234\t1234\n")
		wantContains(t, "group", status, "Gid:\t2345\t2345\t2345\t2345\n")
		wantContains(t, "groups", status, "3456")
	})
}

// TestReports: what a request says about a pod and a container is told as it
// was said, whatever call tells it.
func TestReports(t *testing.T) {
	each(t, func(t *testing.T, env *testenv.Env) {
		notForPeers(t)
		image := env.Pull(testenv.Busybox)
		config := env.PodConfig("pod")
		config.Metadata.Attempt = 3
		config.Annotations = map[string]string{"pod": "note"}
		options := &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER}
		config.Linux.SecurityContext = &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: options}
		pod, err := env.Runtime.RunPodSandbox(env.Context(), &runtimeapi.RunPodSandboxRequest{Config: config, RuntimeHandler: env.RuntimeName})
		if err != nil {
			t.Fatal(err)
		}
		c := env.ContainerConfig("main", "sleep 1000")
		c.Metadata.Attempt = 2
		c.Labels, c.Annotations = map[string]string{"l": "1"}, map[string]string{"a": "2"}
		c.Image.Annotations = map[string]string{"image": "note"}
		c.Mounts = []*runtimeapi.Mount{{HostPath: t.TempDir(), ContainerPath: "/m", Readonly: true}}
		c.StopSignal = runtimeapi.Signal_SIGNAL_SIGUSR1
		c.Linux.Resources = &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 64 << 20}
		c.Linux.SecurityContext = &runtimeapi.LinuxContainerSecurityContext{
			NamespaceOptions: options, RunAsUser: &runtimeapi.Int64Value{Value: 1234}, RunAsGroup: &runtimeapi.Int64Value{Value: 2345}, SupplementalGroups: []int64{3456},
		}
		id := env.Run(pod.PodSandboxId, c, config)

		st := env.Status(id)
		same(t, "metadata", st.Metadata, c.Metadata)
		same(t, "image", st.Image, c.Image)
		same(t, "mount", st.Mounts[0], c.Mounts[0])
		same(t, "resources", st.Resources.GetLinux(), c.Linux.Resources)
		same(t, "user", st.User.GetLinux(), &runtimeapi.LinuxContainerUser{Uid: 1234, Gid: 2345, SupplementalGroups: []int64{2345, 3456}})
		wantEqual(t, "image id", st.ImageId, image)
		wantContains(t, "image ref", st.ImageRef, "@sha256:")
		wantEqual(t, "stop signal", st.StopSignal, c.StopSignal)
		wantEqual(t, "log path", st.LogPath, config.LogDirectory+"/main.log")
		wantEqual(t, "labels", fmt.Sprint(st.Labels, st.Annotations), fmt.Sprint(c.Labels, c.Annotations))
		list, err := env.Runtime.ListContainers(env.Context(), &runtimeapi.ListContainersRequest{})
		if err != nil {
			t.Fatal(err)
		}
		same(t, "listed container", list.Containers[0], &runtimeapi.Container{
			Id: id, PodSandboxId: pod.PodSandboxId, Metadata: c.Metadata, Image: c.Image, ImageRef: st.ImageRef, ImageId: image,
			State: st.State, CreatedAt: st.CreatedAt, Labels: c.Labels, Annotations: c.Annotations,
		})

		ps := env.PodStatus(pod.PodSandboxId)
		same(t, "namespaces", ps.Linux.GetNamespaces().GetOptions(), options)
		pods, err := env.Runtime.ListPodSandbox(env.Context(), &runtimeapi.ListPodSandboxRequest{})
		if err != nil {
			t.Fatal(err)
		}
		same(t, "listed pod", pods.Items[0], &runtimeapi.PodSandbox{
			Id: pod.PodSandboxId, Metadata: config.Metadata, State: ps.State, CreatedAt: ps.CreatedAt,
			Labels: config.Labels, Annotations: config.Annotations, RuntimeHandler: env.RuntimeName,
		})
		same(t, "pod's metadata", ps.Metadata, config.Metadata)
		wantEqual(t, "handler", ps.RuntimeHandler, env.RuntimeName)
		full, err := env.Runtime.PodSandboxStatus(env.Context(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: pod.PodSandboxId})
		if err != nil || len(full.ContainersStatuses) != 1 || full.Timestamp < st.StartedAt {
			t.Fatalf("pod's status: %v, %v", full, err)
		}
		same(t, "container of the pod", full.ContainersStatuses[0], st)
	})
}

func same(t *testing.T, what string, got, want proto.Message) {
	t.Helper()
	if !proto.Equal(got, want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}
