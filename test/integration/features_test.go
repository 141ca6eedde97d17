package integration

import (
	"os"
	"strings"
	"testing"

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
