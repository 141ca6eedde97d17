package integration

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/test/testenv"
)

// TestUnknownIDs: NotFound where the object is needed, success where its absence
// is what the caller wants.
func TestUnknownIDs(t *testing.T) {
	each(t, func(t *testing.T, env *testenv.Env) {
		notForPeers(t)
		ctx, r := env.Context(), env.Runtime
		for _, id := range []string{strings.Repeat("f", 64), "feed", "../../etc", "nonsense"} {
			_, err := r.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: id})
			wantCode(t, "PodSandboxStatus "+id, err, codes.NotFound)
			_, err = r.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: id})
			wantCode(t, "StopPodSandbox "+id, err, codes.OK)
			_, err = r.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: id})
			wantCode(t, "RemovePodSandbox "+id, err, codes.OK)
			_, err = r.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{PodSandboxId: id, Config: env.ContainerConfig("a", ""), SandboxConfig: env.PodConfig("a")})
			wantCode(t, "CreateContainer in "+id, err, codes.NotFound)
			_, err = r.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: id})
			wantCode(t, "StartContainer "+id, err, codes.NotFound)
			_, err = r.StopContainer(ctx, &runtimeapi.StopContainerRequest{ContainerId: id})
			wantCode(t, "StopContainer "+id, err, codes.OK)
			_, err = r.RemoveContainer(ctx, &runtimeapi.RemoveContainerRequest{ContainerId: id})
			wantCode(t, "RemoveContainer "+id, err, codes.OK)
			_, err = r.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: id})
			wantCode(t, "ContainerStatus "+id, err, codes.NotFound)
			_, err = r.ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: id, Cmd: []string{"true"}})
			wantCode(t, "ExecSync "+id, err, codes.NotFound)
			_, err = r.ReopenContainerLog(ctx, &runtimeapi.ReopenContainerLogRequest{ContainerId: id})
			wantCode(t, "ReopenContainerLog "+id, err, codes.NotFound)
		}
		_, err := r.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{})
		wantCode(t, "PodSandboxStatus without id", err, codes.InvalidArgument)
		_, err = r.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{})
		wantCode(t, "ContainerStatus without id", err, codes.InvalidArgument)
	})
}

// TestAmbiguousIDs: of 17 pods two begin with the same digit.
func TestAmbiguousIDs(t *testing.T) {
	each(t, func(t *testing.T, env *testenv.Env) {
		notForPeers(t)
		seen := map[string]string{}
		digit := ""
		for i := 0; digit == ""; i++ {
			config := env.PodConfig("pod" + strings.Repeat("x", i))
			config.Linux.SecurityContext = &runtimeapi.LinuxSandboxSecurityContext{
				NamespaceOptions: &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE},
			}
			id := env.RunPod(config)
			if seen[id[:1]] != "" {
				digit = id[:1]
			}
			seen[id[:1]] = id
		}
		_, err := env.Runtime.PodSandboxStatus(env.Context(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: digit})
		wantCode(t, "status of an ambiguous id", err, codes.InvalidArgument)
		_, err = env.Runtime.StopPodSandbox(env.Context(), &runtimeapi.StopPodSandboxRequest{PodSandboxId: digit})
		wantCode(t, "stop of an ambiguous id", err, codes.InvalidArgument)
		_, err = env.Runtime.RemovePodSandbox(env.Context(), &runtimeapi.RemovePodSandboxRequest{PodSandboxId: digit})
		wantCode(t, "removal of an ambiguous id", err, codes.InvalidArgument)
	})
}

// TestBadPods: requests that can never succeed.
func TestBadPods(t *testing.T) {
	each(t, func(t *testing.T, env *testenv.Env) {
		notForPeers(t)
		change := func(f func(*runtimeapi.PodSandboxConfig)) *runtimeapi.PodSandboxConfig {
			config := env.PodConfig("pod")
			f(config)
			return config
		}
		for _, tt := range []struct {
			name, handler string
			config        *runtimeapi.PodSandboxConfig
		}{
			{"no config", "", nil},
			{"no metadata", "", change(func(c *runtimeapi.PodSandboxConfig) { c.Metadata = nil })},
			{"no name", "", change(func(c *runtimeapi.PodSandboxConfig) { c.Metadata.Name = "" })},
			{"unknown handler", "no-such-handler", env.PodConfig("pod")},
			{"relative log directory", "", change(func(c *runtimeapi.PodSandboxConfig) { c.LogDirectory = "../logs" })},
			{"host port out of range", "", change(func(c *runtimeapi.PodSandboxConfig) {
				c.PortMappings = []*runtimeapi.PortMapping{{ContainerPort: 80, HostPort: 70000}}
			})},
			{"unknown protocol", "", change(func(c *runtimeapi.PodSandboxConfig) {
				c.PortMappings = []*runtimeapi.PortMapping{{ContainerPort: 80, HostPort: 80, Protocol: 9}}
			})},
			{"Windows", "", change(func(c *runtimeapi.PodSandboxConfig) { c.Windows = &runtimeapi.WindowsPodSandboxConfig{} })},
			{"group without user", "", change(func(c *runtimeapi.PodSandboxConfig) {
				c.Linux.SecurityContext = &runtimeapi.LinuxSandboxSecurityContext{RunAsGroup: &runtimeapi.Int64Value{Value: 1}}
			})},
		} {
			prompt(t, tt.name, 20*time.Second, func() {
				_, err := env.Runtime.RunPodSandbox(env.Context(), &runtimeapi.RunPodSandboxRequest{Config: tt.config, RuntimeHandler: tt.handler})
				wantCode(t, tt.name, err, codes.InvalidArgument)
			})
		}
		list, err := env.Runtime.ListPodSandbox(env.Context(), &runtimeapi.ListPodSandboxRequest{})
		wantCode(t, "list", err, codes.OK)
		wantEqual(t, "number of pods", len(list.GetItems()), 0)
	})
}

// TestBadContainers: the same for containers.
func TestBadContainers(t *testing.T) {
	withPod(t, func(t *testing.T, env *testenv.Env, pod string, podConfig *runtimeapi.PodSandboxConfig) {
		notForPeers(t)
		change := func(f func(*runtimeapi.ContainerConfig)) *runtimeapi.ContainerConfig {
			config := env.ContainerConfig("main", "true")
			f(config)
			return config
		}
		for _, tt := range []struct {
			name   string
			config *runtimeapi.ContainerConfig
			want   codes.Code
		}{
			{"no config", nil, codes.InvalidArgument},
			{"no metadata", change(func(c *runtimeapi.ContainerConfig) { c.Metadata = nil }), codes.InvalidArgument},
			{"no image", change(func(c *runtimeapi.ContainerConfig) { c.Image = nil }), codes.InvalidArgument},
			{"image that is not there", change(func(c *runtimeapi.ContainerConfig) {
				c.Image = &runtimeapi.ImageSpec{Image: "docker.io/library/never-pulled:latest"}
			}), codes.NotFound},
			{"log path that leaves the pod's directory", change(func(c *runtimeapi.ContainerConfig) { c.LogPath = "../../main.log" }), codes.InvalidArgument},
			{"unknown user", change(func(c *runtimeapi.ContainerConfig) {
				c.Linux.SecurityContext = &runtimeapi.LinuxContainerSecurityContext{RunAsUsername: "nobody-knows"}
			}), codes.InvalidArgument},
			{"group without user", change(func(c *runtimeapi.ContainerConfig) {
				c.Linux.SecurityContext = &runtimeapi.LinuxContainerSecurityContext{RunAsGroup: &runtimeapi.Int64Value{Value: 1}}
			}), codes.InvalidArgument},
			{"Windows", change(func(c *runtimeapi.ContainerConfig) { c.Windows = &runtimeapi.WindowsContainerConfig{} }), codes.InvalidArgument},
			{"image for an unknown handler", change(func(c *runtimeapi.ContainerConfig) { c.Image.RuntimeHandler = "no-such-handler" }), codes.InvalidArgument},
			{"network of the node", change(func(c *runtimeapi.ContainerConfig) {
				c.Linux.SecurityContext = &runtimeapi.LinuxContainerSecurityContext{NamespaceOptions: &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE}}
			}), codes.InvalidArgument},
			{"IPC namespace of its own", change(func(c *runtimeapi.ContainerConfig) {
				c.Linux.SecurityContext = &runtimeapi.LinuxContainerSecurityContext{NamespaceOptions: &runtimeapi.NamespaceOption{Ipc: runtimeapi.NamespaceMode_CONTAINER}}
			}), codes.InvalidArgument},
			{"mount without path", change(func(c *runtimeapi.ContainerConfig) {
				c.Mounts = []*runtimeapi.Mount{{HostPath: "/tmp"}}
			}), codes.InvalidArgument},
		} {
			prompt(t, tt.name, 20*time.Second, func() {
				_, err := env.Runtime.CreateContainer(env.Context(), &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: tt.config, SandboxConfig: podConfig})
				wantCode(t, tt.name, err, tt.want)
			})
		}
		list, err := env.Runtime.ListContainers(env.Context(), &runtimeapi.ListContainersRequest{})
		wantCode(t, "list", err, codes.OK)
		wantEqual(t, "number of containers", len(list.GetContainers()), 0)
	})
}

// TestLyingSandboxConfig: what a CreateContainer says about its pod is not
// believed against what the pod was made with.
func TestLyingSandboxConfig(t *testing.T) {
	withPod(t, func(t *testing.T, env *testenv.Env, pod string, podConfig *runtimeapi.PodSandboxConfig) {
		notForPeers(t)
		lie := env.PodConfig("another")
		lie.Hostname = "liar"
		lie.Linux.CgroupParent = env.CgroupParent + "/stolen"
		lie.LogDirectory = podConfig.LogDirectory
		resp, err := env.Runtime.CreateContainer(env.Context(), &runtimeapi.CreateContainerRequest{
			PodSandboxId: pod, Config: env.ContainerConfig("main", "sleep 1000"), SandboxConfig: lie,
		})
		if err != nil {
			wantCode(t, "a sandbox config that lies", err, codes.InvalidArgument)
			return
		}
		env.Start(resp.ContainerId)
		wantEqual(t, "hostname", env.Exec(resp.ContainerId, "hostname"), "pod\n")
		if strings.Contains(readProc(t, initPID(t, resp.ContainerId), "cgroup"), "stolen") {
			t.Error("the container is in the cgroup that the lie names")
		}
	})
}

// TestStoppedPod: no container is created in it.
func TestStoppedPod(t *testing.T) {
	withPod(t, func(t *testing.T, env *testenv.Env, pod string, podConfig *runtimeapi.PodSandboxConfig) {
		env.StopPod(pod)
		_, err := env.Runtime.CreateContainer(env.Context(), &runtimeapi.CreateContainerRequest{
			PodSandboxId: pod, Config: env.ContainerConfig("main", "true"), SandboxConfig: podConfig,
		})
		if !testenv.Peer() {
			wantCode(t, "create in a stopped pod", err, codes.FailedPrecondition)
		}
		wantNotOK(t, "create in a stopped pod", err)
	})
}

// TestFailingRuntime: its own words reach the caller, and nothing stays.
func TestFailingRuntime(t *testing.T) {
	eachWith(t, testenv.Options{Runtimes: failingRuntimes(t)}, func(t *testing.T, env *testenv.Env) {
		notForPeers(t)
		env.Pull(testenv.Busybox)
		_, err := env.Runtime.RunPodSandbox(env.Context(), &runtimeapi.RunPodSandboxRequest{Config: env.PodConfig("pod"), RuntimeHandler: "no-pods"})
		wantNotOK(t, "a pod with a runtime that can't create", err)
		if err != nil {
			wantContains(t, "error", err.Error(), "broken on purpose")
		}

		config := env.PodConfig("other")
		_, err = env.Runtime.RunPodSandbox(env.Context(), &runtimeapi.RunPodSandboxRequest{Config: config, RuntimeHandler: "no-start"})
		wantNotOK(t, "a pod with a runtime that can't start", err)
		for _, handler := range []string{"no-room-to-create", "no-room-to-start"} {
			_, err = env.Runtime.RunPodSandbox(env.Context(), &runtimeapi.RunPodSandboxRequest{Config: env.PodConfig(handler), RuntimeHandler: handler})
			wantCode(t, handler, err, codes.ResourceExhausted)
		}

		pod := env.RunPod(env.PodConfig("good"))
		bad := env.ContainerConfig("main", "true")
		bad.Command = []string{"/no/such/program"}
		id, err := env.Runtime.CreateContainer(env.Context(), &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: bad, SandboxConfig: env.PodConfig("good")})
		if err == nil { // runc finds it out at create, crun too, others at start
			_, err = env.Runtime.StartContainer(env.Context(), &runtimeapi.StartContainerRequest{ContainerId: id.ContainerId})
		}
		wantNotOK(t, "a program that does not exist", err)
		if err != nil {
			wantContains(t, "error", strings.ToLower(err.Error()), "no such file")
		}
	})
}

func failingRuntimes(t *testing.T) map[string]string {
	dir := t.TempDir()
	real := testenv.Program(t, "crun")
	failAt := func(command, words string) string {
		return "for word; do if [ \"$word\" = " + command + " ]; then echo " + words + " >&2; exit 1; fi; done\nexec " + real + " \"$@\"\n"
	}
	const full = "mkdir /run/x: No space left on device"
	return map[string]string{
		"no-pods":           script(t, dir, "no-pods", failAt("create", "broken on purpose")),
		"no-start":          script(t, dir, "no-start", failAt("start", "broken on purpose")),
		"no-room-to-create": script(t, dir, "no-room-to-create", failAt("create", full)),
		"no-room-to-start":  script(t, dir, "no-room-to-start", failAt("start", full)),
	}
}

// failingPlugin answers ADD with a CNI error, and everything else well.
const failingPlugin = `msg="no network on purpose"
[ "${0%full}" = "$0" ] || msg="open /var/lib/cni/x: no space left on device"
if [ "$CNI_COMMAND" = VERSION ]; then
	echo '{"cniVersion":"1.0.0","supportedVersions":["0.4.0","1.0.0"]}'
elif [ "$CNI_COMMAND" = ADD ]; then
	echo '{"cniVersion":"1.0.0","code":999,"msg":"'"$msg"'"}'
	exit 1
fi
`

// TestFailingPlugin: a chain whose second plugin fails is undone from the first.
func TestFailingPlugin(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"failing", "full"} {
		script(t, dir, name, failingPlugin)
	}
	eachWith(t, testenv.Options{PluginDir: dir}, func(t *testing.T, env *testenv.Env) {
		notForPeers(t)
		if err := env.WriteNetwork(withPlugin(env, "failing")); err != nil {
			t.Fatal(err)
		}
		prompt(t, "a pod whose network fails", 30*time.Second, func() {
			err := runUntilSeen(env)
			wantNotOK(t, "a pod whose network fails", err)
			if err != nil {
				wantContains(t, "error", err.Error(), "no network on purpose")
			}
		})
		env.RemoveAll()
		if err := env.WriteNetwork(withPlugin(env, "full")); err != nil {
			t.Fatal(err)
		}
		env.Eventually("a plugin without room to be told as that", func() error {
			if err := runUntilSeen(env); status.Code(err) != codes.ResourceExhausted {
				return fmt.Errorf("a pod whose plugin has no room: %w", err)
			}
			return nil
		})
		env.RemoveAll()
		if err := env.WriteNetwork(env.Network()); err != nil {
			t.Fatal(err)
		}
		env.CheckLeaks()
	})
}

// runUntilSeen runs pods until one fails: a changed network
// configuration takes a moment to be noticed.
func runUntilSeen(env *testenv.Env) error {
	for range 20 {
		config := env.PodConfig("pod")
		resp, err := env.Runtime.RunPodSandbox(env.Context(), &runtimeapi.RunPodSandboxRequest{Config: config})
		if err != nil {
			return err
		}
		env.RemovePod(resp.PodSandboxId)
		time.Sleep(100 * time.Millisecond)
	}
	return nil
}

func withPlugin(env *testenv.Env, name string) map[string]any {
	conflist := env.Network()
	conflist["plugins"] = append(conflist["plugins"].([]any), map[string]any{"type": name})
	return conflist
}

// TestHangingPlugin: a network that hangs holds up its own pod only. The
// caller's deadline is kept, lists and other calls go on, and the same request
// later gets the pod.
func TestHangingPlugin(t *testing.T) {
	dir := t.TempDir()
	release := dir + "/release"
	script(t, dir, "hanging", `if [ "$CNI_COMMAND" = VERSION ]; then
	echo '{"cniVersion":"1.0.0","supportedVersions":["0.4.0","1.0.0"]}'
	exit
fi
conf=$(cat)
if [ "$CNI_COMMAND" = ADD ]; then
	while [ ! -e `+release+`-$(printf '%s' "$conf" | jq -r .name) ]; do sleep 0.1; done
	printf '%s' "$conf" | jq -c '.prevResult'
fi
`)
	eachWith(t, testenv.Options{PluginDir: dir, NoNetwork: true}, func(t *testing.T, env *testenv.Env) {
		notForPeers(t)
		testHangingPlugin(t, env, release+"-"+env.Name)
	})
}

func testHangingPlugin(t *testing.T, env *testenv.Env, release string) {
	if err := env.WriteNetwork(withPlugin(env, "hanging")); err != nil {
		t.Fatal(err)
	}
	env.Eventually("the network to be seen", func() error {
		if c := condition(t, env, "NetworkReady"); !c.Status {
			return context.DeadlineExceeded
		}
		return nil
	})
	config := env.PodConfig("pod")
	prompt(t, "a pod whose network hangs", 15*time.Second, func() {
		ctx, cancel := context.WithTimeout(env.Context(), 2*time.Second)
		defer cancel()
		_, err := env.Runtime.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: config})
		wantCode(t, "a pod whose network hangs", err, codes.DeadlineExceeded)
	})
	prompt(t, "other calls meanwhile", 10*time.Second, func() {
		_, err := env.Runtime.ListPodSandbox(env.Context(), &runtimeapi.ListPodSandboxRequest{})
		wantCode(t, "list meanwhile", err, codes.OK)
		condition(t, env, "RuntimeReady")
		other := env.PodConfig("host")
		other.Linux.SecurityContext = &runtimeapi.LinuxSandboxSecurityContext{
			NamespaceOptions: &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE},
		}
		env.RemovePod(env.RunPod(other))
	})
	touch(t, release)
	pod := env.RunPod(config)
	wantEqual(t, "state", env.PodStatus(pod).State, runtimeapi.PodSandboxState_SANDBOX_READY)
	if err := env.WriteNetwork(env.Network()); err != nil {
		t.Fatal(err)
	}
}
