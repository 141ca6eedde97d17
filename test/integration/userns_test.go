package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/test/testenv"
)

const (
	usernsHost   = 300000
	usernsLength = 65536
)

func idMapping(host, length uint32) []*runtimeapi.IDMapping {
	return []*runtimeapi.IDMapping{{HostId: host, Length: length}}
}

func usernsOptions(host uint32) *runtimeapi.NamespaceOption {
	return &runtimeapi.NamespaceOption{
		Pid: runtimeapi.NamespaceMode_CONTAINER,
		UsernsOptions: &runtimeapi.UserNamespace{
			Mode: runtimeapi.NamespaceMode_POD, Uids: idMapping(host, usernsLength), Gids: idMapping(host, usernsLength),
		},
	}
}

func usernsPod(env *testenv.Env, name string) *runtimeapi.PodSandboxConfig {
	config := env.PodConfig(name)
	config.Linux.SecurityContext = &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: usernsOptions(usernsHost)}
	return config
}

func usernsContainer(env *testenv.Env, name, script string) *runtimeapi.ContainerConfig {
	config := env.ContainerConfig(name, script)
	config.Linux.SecurityContext = &runtimeapi.LinuxContainerSecurityContext{NamespaceOptions: usernsOptions(usernsHost)}
	return config
}

// handlerFeatures are those of the default handler.
func handlerFeatures(t *testing.T, env *testenv.Env) *runtimeapi.RuntimeHandlerFeatures {
	t.Helper()
	resp, err := env.Runtime.Status(env.Context(), &runtimeapi.StatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range resp.RuntimeHandlers {
		if h.Name == "" {
			return h.Features
		}
	}
	t.Fatal("no default handler in Status")
	return nil
}

// mapsIDs is what the binary says itself; crun 1.8 maps and does not say.
func mapsIDs(t *testing.T, env *testenv.Env) bool {
	t.Helper()
	out, err := exec.Command(testenv.Program(t, env.RuntimeName), "features").Output()
	if err != nil {
		return env.RuntimeName == "crun"
	}
	var f struct {
		Linux struct {
			MountExtensions struct {
				IDMap struct{ Enabled bool }
			}
		}
	}
	if err := json.Unmarshal(out, &f); err != nil {
		t.Fatal(err)
	}
	return f.Linux.MountExtensions.IDMap.Enabled
}

// withUserNS runs a test where the runtime can map ids. Where it can't, that
// must be told and the pod be refused.
func withUserNS(t *testing.T, test func(t *testing.T, env *testenv.Env)) {
	t.Helper()
	each(t, func(t *testing.T, env *testenv.Env) {
		notForPeers(t)
		env.Pull(testenv.Busybox)
		wantEqual(t, "user_namespaces of the handler", handlerFeatures(t, env).UserNamespaces, mapsIDs(t, env))
		if mapsIDs(t, env) {
			test(t, env)
			return
		}
		_, err := env.Runtime.RunPodSandbox(env.Context(), &runtimeapi.RunPodSandboxRequest{Config: usernsPod(env, "pod")})
		wantCode(t, "a user namespace with a runtime that can't map ids", err, codes.Unimplemented)
		wantContains(t, "the refusal", err.Error(), env.RuntimeName)
	})
}

// TestUserNamespace: whose the processes and files of a pod are, inside and on
// the node.
func TestUserNamespace(t *testing.T) {
	withUserNS(t, func(t *testing.T, env *testenv.Env) {
		podConfig := usernsPod(env, "pod")
		podConfig.Linux.Sysctls = map[string]string{"net.ipv4.ip_local_port_range": "2000 3000", "kernel.shm_rmid_forced": "1"}
		pod := env.RunPod(podConfig)
		config := usernsContainer(env, "main", "echo opened > /dev/stdout; echo too > /dev/stderr; exec sleep 1000")
		config.WorkingDir = "/var/new/dir"
		id := env.Run(pod, config, podConfig)
		log := filepath.Join(podConfig.LogDirectory, "main.log")
		env.WaitLog(log, "opened")
		env.WaitLog(log, "too")
		wantEqual(t, "uid_map", strings.Join(strings.Fields(env.Exec(id, "cat /proc/self/uid_map /proc/self/gid_map")), " "),
			"0 300000 65536 0 300000 65536")
		wantContains(t, "owner of the init on the node", readProc(t, initPID(t, id), "status"), "\nUid:\t300000\t300000\t300000\t300000\n")

		wantEqual(t, "owners in the image", env.Exec(id, "stat -c %u:%g / /bin/busybox /home/default-user /var/new/dir"), "0:0\n0:0\n1000:1000\n0:0\n")
		env.Exec(id, "touch /new && chown 5:6 /new && echo x >> /etc/passwd && chown 1000 /home && echo y > /home/default-user/z && mknod /pipe p")
		wantEqual(t, "owners of what changed", env.Exec(id, "stat -c %u:%g /new /etc/passwd /home /home/default-user"), "5:6\n0:0\n1000:0\n1000:1000\n")
		wantOwner(t, filepath.Join(env.Root, "containers", id, "upper", "new"), usernsHost+5, usernsHost+6)
		wantOwner(t, filepath.Join(env.Root, "containers", id, "upper", "etc/passwd"), usernsHost, usernsHost)

		wantEqual(t, "owners of the pod's files", env.Exec(id, "stat -c %u:%g /etc/hosts /etc/hostname /etc/resolv.conf /dev/shm"), strings.Repeat("0:0\n", 4))
		env.Exec(id, "echo '10.0.0.9 nine' >> /etc/hosts; echo shared > /dev/shm/file; stat /sys/class/net/eth0 >/dev/null; ls /dev/mqueue >/dev/null; : > /dev/null")
		wantEqual(t, "sysctls", env.Exec(id, "cat /proc/sys/net/ipv4/ip_local_port_range /proc/sys/kernel/shm_rmid_forced"), "2000\t3000\n1\n")
		wantContains(t, "addresses", env.Exec(id, "ip addr show eth0; ip addr show lo"), env.PodStatus(pod).Network.Ip)
		wantContains(t, "loopback", env.Exec(id, "ip addr show lo"), "127.0.0.1")
		env.Exec(id, "echo out > /dev/stdout; echo err > /dev/stderr")

		other := env.Run(pod, usernsContainer(env, "other", "sleep 1000"), podConfig)
		wantEqual(t, "/dev/shm of the other", env.Exec(other, "cat /dev/shm/file"), "shared\n")
		for _, ns := range []string{"user", "net", "ipc", "uts"} {
			wantEqual(t, ns+" namespace", env.Exec(other, "readlink /proc/self/ns/"+ns), env.Exec(id, "readlink /proc/self/ns/"+ns))
		}
		if own, _ := os.Readlink("/proc/self/ns/user"); strings.TrimSpace(env.Exec(id, "readlink /proc/self/ns/user")) == own {
			t.Error("the container is in the node's user namespace")
		}
		env.Stop(id, 0)
		wantEqual(t, "the other after the first has ended", env.Exec(other, "echo alive"), "alive\n")
	})
}

func wantOwner(t *testing.T, path string, uid, gid uint32) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(path, err)
	}
	wantEqual(t, "owner of "+path, fmt.Sprintf("%d:%d", st.Uid, st.Gid), fmt.Sprintf("%d:%d", uid, gid))
}

// TestUserNamespaceRights: root of a pod's user namespace rules its pod's
// namespaces, and nothing of the node.
func TestUserNamespaceRights(t *testing.T) {
	withUserNS(t, func(t *testing.T, env *testenv.Env) {
		podConfig := usernsPod(env, "pod")
		pod := env.RunPod(podConfig)
		config := usernsContainer(env, "main", "sleep 1000")
		config.Linux.SecurityContext.Capabilities = &runtimeapi.Capability{AddCapabilities: []string{"NET_ADMIN", "SYS_ADMIN"}}
		config.Linux.SecurityContext.Apparmor = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined} // the default one forbids mounting
		config.Mounts = []*runtimeapi.Mount{{HostPath: env.RunRoot, ContainerPath: "/node"}}
		id := env.Run(pod, config, podConfig)
		env.Exec(id, "ip link add d0 type dummy 2>/dev/null || ip link set lo mtu 1400")
		env.Exec(id, "mount -t tmpfs t /mnt 2>/dev/null || mkdir /m && mount -t tmpfs t /m")
		wantEqual(t, "a file of the node's root", env.Exec(id, "stat -c %u /node/gantry.sock /node/boot_id 2>/dev/null | sort -u; cat /node/boot_id 2>/dev/null || echo refused"), "65534\nrefused\n")
		wantEqual(t, "the pods of others", env.Exec(id, "ls /node/pods 2>/dev/null || echo refused"), "refused\n")
		wantEqual(t, "its own records", env.Exec(id, "cat /node/pods/"+pod+"/pod.json 2>/dev/null || echo refused"), "refused\n")
		wantEqual(t, "the node's kernel", env.Exec(id, "(echo 1 > /proc/sys/kernel/panic) 2>/dev/null || echo refused"), "refused\n")
	})
}

// TestUserNamespaceVolumes: a volume with mappings has its owners inside, one
// without belongs to nobody there.
func TestUserNamespaceVolumes(t *testing.T) {
	withUserNS(t, func(t *testing.T, env *testenv.Env) {
		host := filepath.Join(env.Dir, "volume")
		file := filepath.Join(host, "file")
		if err := os.Mkdir(host, 0o755); err != nil {
			t.Fatal(err)
		}
		touch(t, file)
		if err := os.Chown(file, 1000, 1000); err != nil {
			t.Fatal(err)
		}
		podConfig := usernsPod(env, "pod")
		pod := env.RunPod(podConfig)
		config := usernsContainer(env, "main", "sleep 1000")
		ids := idMapping(usernsHost, usernsLength)
		config.Mounts = []*runtimeapi.Mount{
			{HostPath: host, ContainerPath: "/mapped", UidMappings: ids, GidMappings: ids},
			{HostPath: host, ContainerPath: "/mapped-ro", UidMappings: ids, GidMappings: ids, Readonly: true},
			{HostPath: file, ContainerPath: "/mapped-file", UidMappings: ids, GidMappings: ids},
			{HostPath: host, ContainerPath: "/plain"},
		}
		id := env.Run(pod, config, podConfig)
		wantEqual(t, "owners", env.Exec(id, "stat -c %u:%g /mapped /mapped/file /mapped-ro/file /mapped-file /plain /plain/file"),
			"0:0\n1000:1000\n1000:1000\n1000:1000\n65534:65534\n65534:65534\n")
		env.Exec(id, "echo x > /mapped/new && chown 7:8 /mapped/new")
		wantOwner(t, filepath.Join(host, "new"), 7, 8)
		wantEqual(t, "writes", env.Exec(id, "for d in /mapped-ro /plain; do touch $d/x 2>/dev/null || echo refused; done"), "refused\nrefused\n")
	})
}

// TestUserNamespaceUsers: users other than root, terminals, exec and attach.
func TestUserNamespaceUsers(t *testing.T) {
	withUserNS(t, func(t *testing.T, env *testenv.Env) {
		podConfig := usernsPod(env, "pod")
		pod := env.RunPod(podConfig)
		config := usernsContainer(env, "user", "echo mine > /dev/stdout; exec sleep 1000")
		config.Linux.SecurityContext.RunAsUser = &runtimeapi.Int64Value{Value: 1000}
		config.Linux.SecurityContext.SupplementalGroups = []int64{1234}
		id := env.Run(pod, config, podConfig)
		env.WaitLog(filepath.Join(podConfig.LogDirectory, "user.log"), "mine")
		wantEqual(t, "id", env.Exec(id, "id -u; id -G | grep -c 1234"), "1000\n1\n")
		wantContains(t, "owner on the node", readProc(t, initPID(t, id), "status"), "\nUid:\t301000\t")

		tty := usernsContainer(env, "tty", "test -t 1 && echo opened > /dev/tty; exec sleep 1000")
		tty.Tty = true
		env.Run(pod, tty, podConfig)
		env.WaitLog(filepath.Join(podConfig.LogDirectory, "tty.log"), "opened")

		out, err := crictl(t, env, "exec", id, "sh", "-c", "echo streamed > /dev/stdout; id -u")
		if err != nil || out != "streamed\n1000\n" {
			t.Errorf("streamed exec: %q, %v", out, err)
		}
		in := usernsContainer(env, "in", "read line && echo got $line")
		in.Stdin, in.StdinOnce = true, true
		in.LogPath = "in.log"
		reader := env.Run(pod, in, podConfig)
		attach(t, env, reader, "hello\n")
		env.WaitLog(filepath.Join(podConfig.LogDirectory, "in.log"), "got hello")

		outside := usernsContainer(env, "outside", "true")
		outside.Linux.SecurityContext.RunAsUser = &runtimeapi.Int64Value{Value: usernsLength}
		wantRefused(t, env, pod, outside, podConfig, codes.InvalidArgument, "outside")
	})
}

func wantRefused(t *testing.T, env *testenv.Env, pod string, config *runtimeapi.ContainerConfig, podConfig *runtimeapi.PodSandboxConfig, code codes.Code, words string) {
	t.Helper()
	_, err := env.Runtime.CreateContainer(env.Context(), &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: config, SandboxConfig: podConfig})
	wantCode(t, config.Metadata.Name, err, code)
	if err != nil {
		wantContains(t, config.Metadata.Name, err.Error(), words)
	}
}

func crictl(t *testing.T, env *testenv.Env, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, testenv.Binary(t, "crictl"), append([]string{"--runtime-endpoint", "unix://" + env.Socket}, args...)...)
	out, err := cmd.Output()
	return string(out), err
}

// attach sends words to a container's standard input, and its end.
func attach(t *testing.T, env *testenv.Env, container, words string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, testenv.Binary(t, "crictl"), "--runtime-endpoint", "unix://"+env.Socket, "attach", "-i", container)
	cmd.Stdin = strings.NewReader(words)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Errorf("attach: %v: %s", err, out.String())
	}
}

// TestUserNamespaceHostNetwork: the node's network, which the pod may use and not change.
func TestUserNamespaceHostNetwork(t *testing.T) {
	withUserNS(t, func(t *testing.T, env *testenv.Env) {
		resp, err := env.Runtime.Status(env.Context(), &runtimeapi.StatusRequest{})
		wantCode(t, "Status", err, codes.OK)
		wantEqual(t, "user_namespaces_host_network", resp.GetFeatures().GetUserNamespacesHostNetwork(), true)
		podConfig := usernsPod(env, "pod")
		options := podConfig.Linux.SecurityContext.NamespaceOptions
		options.Network = runtimeapi.NamespaceMode_NODE
		podConfig.Hostname = ""
		pod := env.RunPod(podConfig)
		config := usernsContainer(env, "main", "sleep 1000")
		config.Linux.SecurityContext.NamespaceOptions = options
		config.Linux.SecurityContext.Capabilities = &runtimeapi.Capability{AddCapabilities: []string{"NET_ADMIN"}}
		id := env.Run(pod, config, podConfig)
		own, err := os.Readlink("/proc/self/ns/net")
		if err != nil {
			t.Fatal(err)
		}
		wantEqual(t, "network", strings.TrimSpace(env.Exec(id, "readlink /proc/self/ns/net")), own)
		wantContains(t, "uid_map", env.Exec(id, "cat /proc/self/uid_map"), strconv.Itoa(usernsHost))
		wantEqual(t, "a change of it", env.Exec(id, "ip link set lo mtu 1400 2>/dev/null || echo refused"), "refused\n")
		env.Exec(id, "ls /sys/class/net/lo >/dev/null")
		wantEqual(t, "writes below /sys", env.Exec(id, "(echo 1 > /sys/kernel/profiling) 2>/dev/null || echo refused"), "refused\n")
	})
}

// TestUserNamespaceRestart: a new daemon runs containers in the user namespace
// that an earlier one made.
func TestUserNamespaceRestart(t *testing.T) {
	withUserNS(t, func(t *testing.T, env *testenv.Env) {
		podConfig := usernsPod(env, "pod")
		pod := env.RunPod(podConfig)
		id := env.Run(pod, usernsContainer(env, "before", "sleep 1000"), podConfig)
		env.Kill9()
		env.StartDaemon()
		wantEqual(t, "exec", env.Exec(id, "id -u"), "0\n")
		after := env.Run(pod, usernsContainer(env, "after", "sleep 1000"), podConfig)
		wantEqual(t, "user namespace", env.Exec(after, "readlink /proc/self/ns/user"), env.Exec(id, "readlink /proc/self/ns/user"))
		wantEqual(t, "owner", env.Exec(after, "stat -c %u:%g /bin/busybox"), "0:0\n")
	})
}

// TestBadUserNamespaces: requests that contradict themselves, or the pod.
func TestBadUserNamespaces(t *testing.T) {
	withUserNS(t, func(t *testing.T, env *testenv.Env) {
		for name, change := range map[string]func(*runtimeapi.NamespaceOption){
			"no mapping": func(o *runtimeapi.NamespaceOption) { o.UsernsOptions.Uids = nil },
			"two mappings": func(o *runtimeapi.NamespaceOption) {
				o.UsernsOptions.Gids = append(o.UsernsOptions.Gids, idMapping(1, 1)...)
			},
			"no length":      func(o *runtimeapi.NamespaceOption) { o.UsernsOptions.Uids = idMapping(usernsHost, 0) },
			"not from 0":     func(o *runtimeapi.NamespaceOption) { o.UsernsOptions.Uids[0].ContainerId = 1 },
			"beyond all ids": func(o *runtimeapi.NamespaceOption) { o.UsernsOptions.Uids = idMapping(1<<32-2, 2) },
			"container mode": func(o *runtimeapi.NamespaceOption) { o.UsernsOptions.Mode = runtimeapi.NamespaceMode_CONTAINER },
			"target mode":    func(o *runtimeapi.NamespaceOption) { o.UsernsOptions.Mode = runtimeapi.NamespaceMode_TARGET },
			"node's PIDs":    func(o *runtimeapi.NamespaceOption) { o.Pid = runtimeapi.NamespaceMode_NODE },
			"node's IPC":     func(o *runtimeapi.NamespaceOption) { o.Ipc = runtimeapi.NamespaceMode_NODE },
		} {
			config := usernsPod(env, "bad")
			change(config.Linux.SecurityContext.NamespaceOptions)
			_, err := env.Runtime.RunPodSandbox(env.Context(), &runtimeapi.RunPodSandboxRequest{Config: config})
			wantCode(t, name, err, codes.InvalidArgument)
		}
		podConfig := usernsPod(env, "pod")
		pod := env.RunPod(podConfig)
		other := usernsContainer(env, "other", "true")
		other.Linux.SecurityContext.NamespaceOptions = usernsOptions(usernsHost + 1)
		wantRefused(t, env, pod, other, podConfig, codes.InvalidArgument, "differ")
		node := usernsContainer(env, "node", "true")
		node.Linux.SecurityContext.NamespaceOptions.UsernsOptions = &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_NODE}
		wantRefused(t, env, pod, node, podConfig, codes.InvalidArgument, "differ")
		silent := env.Run(pod, env.ContainerConfig("silent", "sleep 1000"), podConfig)
		wantContains(t, "the map of a container that says nothing", env.Exec(silent, "cat /proc/self/uid_map"), strconv.Itoa(usernsHost))

		plainConfig := env.PodConfig("plain")
		plain := env.RunPod(plainConfig)
		wantRefused(t, env, plain, usernsContainer(env, "mapped", "true"), plainConfig, codes.InvalidArgument, "differ")
		volume := env.ContainerConfig("volume", "true")
		volume.Mounts = []*runtimeapi.Mount{{
			HostPath: env.LogDir, ContainerPath: "/v", UidMappings: idMapping(1, 1), GidMappings: idMapping(1, 1),
		}}
		wantRefused(t, env, plain, volume, plainConfig, codes.InvalidArgument, "user namespace")
	})
}

// TestUserNamespaceKilled: the daemon is killed at random points of making a pod
// with a user namespace and a container with an image volume; the next one
// undoes or keeps it.
func TestUserNamespaceKilled(t *testing.T) {
	withUserNS(t, func(t *testing.T, env *testenv.Env) {
		for i := range 6 {
			podConfig := usernsPod(env, fmt.Sprint("pod", i))
			made := make(chan struct{})
			go func() {
				defer close(made)
				ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
				defer cancel()
				pod, err := env.Runtime.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: podConfig})
				if err != nil {
					return // the daemon was killed
				}
				config := usernsContainer(env, "main", "sleep 1000")
				config.Mounts = []*runtimeapi.Mount{imageMount(testenv.Busybox, "/v", "bin")}
				_, _ = env.Runtime.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{PodSandboxId: pod.PodSandboxId, Config: config, SandboxConfig: podConfig})
			}()
			select {
			case <-made:
			case <-time.After(rand.N(400 * time.Millisecond)):
			}
			env.Kill9()
			env.StartDaemon()
			<-made
		}
		env.Eventually("what was interrupted to be undone", func() error {
			env.RemoveAll()
			if leaks := env.Leaks(); len(leaks) > 0 {
				return fmt.Errorf("%q", leaks)
			}
			return nil
		})
	})
}
