package crash

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/test/images"
	"github.com/gantry-cri/gantry/test/testenv"
)

// TestOnlyRoot: the sockets and the records are root's alone.
func TestOnlyRoot(t *testing.T) {
	each(t, func(t *testing.T, env *testenv.Env) {
		env.Pull(testenv.Busybox)
		config := env.PodConfig("pod")
		pod := env.RunPod(config)
		env.Run(pod, env.ContainerConfig("main", "sleep 1000"), config)
		sockets := 0
		for _, top := range []string{env.Socket, env.RunRoot, filepath.Join(env.Root, "network")} {
			err := filepath.WalkDir(top, func(path string, entry fs.DirEntry, err error) error {
				if err != nil {
					return err
				}
				info, err := entry.Info()
				if err == nil && entry.Type() == fs.ModeSocket {
					sockets++
					if mode := info.Mode().Perm(); mode != 0o600 {
						t.Errorf("socket %s has mode %o", path, mode)
					}
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		if sockets < 3 {
			t.Errorf("%d sockets: the CRI's, the control socket and a monitor's are to be seen", sockets)
		}
		if seen := asNobody(t, "find", env.RunRoot, filepath.Join(env.Root, "network"), "-type", "f", "-readable"); seen != "" {
			t.Errorf("anyone can read %s", seen)
		}
		if seen := asNobody(t, "find", env.RunRoot, env.Root, "-not", "-type", "l", "-writable"); seen != "" {
			t.Errorf("anyone can write to %s", seen)
		}
	})
}

// asNobody runs a command as a user who owns nothing; that it may not see all is
// no failure.
func asNobody(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	var out bytes.Buffer
	cmd.Stdout = &out
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String()
}

// TestPlantedLogLinks: a link in a pod's log directory, in the log's place, on
// the way to it, or there only when the log is opened again, leads nowhere: what
// it points to stays as it is.
func TestPlantedLogLinks(t *testing.T) {
	each(t, func(t *testing.T, env *testenv.Env) {
		env.Pull(testenv.Busybox)
		config := env.PodConfig("pod")
		pod := env.RunPod(config)
		outside := filepath.Join(env.Dir, "outside")
		precious := filepath.Join(outside, "main.log")
		if err := errors.Join(os.MkdirAll(outside, 0o755), os.WriteFile(precious, []byte("precious"), 0o644)); err != nil {
			t.Fatal(err)
		}
		link := func(target string, at ...string) {
			if err := os.Symlink(target, filepath.Join(append([]string{config.LogDirectory}, at...)...)); err != nil {
				t.Fatal(err)
			}
		}
		link(precious, "file.log")
		link(outside, "way")
		for name, path := range map[string]string{"file": "file.log", "way": "way/main.log", "up": "../../outside/main.log"} {
			c := env.ContainerConfig(name, "echo vandal; sleep 1000")
			c.LogPath = path
			resp, err := env.Runtime.CreateContainer(env.Context(), &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: c, SandboxConfig: config})
			if err == nil {
				env.Start(resp.ContainerId)
			} else if code := status.Code(err); name == "up" && code != codes.InvalidArgument {
				t.Errorf("log path %s: %v", path, err)
			}
		}
		c := env.ContainerConfig("later", "while :; do echo vandal; sleep 0.05; done")
		c.LogPath = "later/main.log"
		id := env.Run(pod, c, config)
		env.WaitLog(filepath.Join(config.LogDirectory, c.LogPath), "vandal")
		if err := os.Rename(filepath.Join(config.LogDirectory, "later"), filepath.Join(config.LogDirectory, "away")); err != nil {
			t.Fatal(err)
		}
		link(outside, "later")
		if _, err := env.Runtime.ReopenContainerLog(env.Context(), &runtimeapi.ReopenContainerLogRequest{ContainerId: id}); err == nil {
			t.Error("a log behind a link was opened again")
		} else {
			t.Logf("reopen: %v", err)
		}
		if got := env.Exec(id, "echo yes"); got != "yes\n" {
			t.Errorf("the container says %q", got)
		}
		if body, err := os.ReadFile(precious); err != nil || string(body) != "precious" {
			t.Errorf("what a link points to is %q, %v", body, err)
		}
		if found := names(t, outside); len(found) != 1 {
			t.Errorf("where a link points to there are %v", found)
		}
	})
}

// TestPlantedMountLinks: links that one container has left in a volume, on the
// way to where another one's mounts go, lead to nowhere on the node.
func TestPlantedMountLinks(t *testing.T) {
	each(t, func(t *testing.T, env *testenv.Env) {
		env.Pull(testenv.Busybox)
		config := env.PodConfig("pod")
		pod := env.RunPod(config)
		volume, outside, data := filepath.Join(env.Dir, "volume"), filepath.Join(env.Dir, "outside"), filepath.Join(env.Dir, "data")
		if err := errors.Join(os.MkdirAll(volume, 0o755), os.MkdirAll(outside, 0o755), os.MkdirAll(data, 0o755)); err != nil {
			t.Fatal(err)
		}
		for name, target := range map[string]string{"absolute": outside, "up": strings.Repeat("../", 20) + outside, "etc": "/etc"} {
			if err := os.Symlink(target, filepath.Join(volume, name)); err != nil {
				t.Fatal(err)
			}
		}
		etc := names(t, "/etc")
		for _, name := range []string{"absolute", "up", "etc"} {
			c := env.ContainerConfig(name, "sleep 1000")
			c.Mounts = []*runtimeapi.Mount{
				{HostPath: volume, ContainerPath: "/volume"},
				{HostPath: data, ContainerPath: "/volume/" + name + "/new"},
			}
			resp, err := env.Runtime.CreateContainer(env.Context(), &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: c, SandboxConfig: config})
			if err != nil { // a runtime may refuse it
				t.Logf("%s: %v", name, err)
				continue
			}
			env.Start(resp.ContainerId)
		}
		if found := names(t, outside); len(found) != 0 {
			t.Errorf("where a link points to there are %v", found)
		}
		if found := names(t, "/etc"); len(found) != len(etc) {
			t.Errorf("the node's /etc: %v, before %v", found, etc)
		}
	})
}

// TestLinkedEtc: an image whose /etc is a link, or whose files in it are, gets
// its hosts, hostname and resolv.conf where the links lead in the container, and
// no user of the node's.
func TestLinkedEtc(t *testing.T) {
	if err := os.Mkdir(images.EtcTarget, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(images.EtcTarget) })
	files := map[string]string{
		"hosts": "precious", "hostname": "precious", "resolv.conf": "precious",
		"passwd": "intruder:x:4711:4711::/:/bin/sh\n", "group": "intruder:x:4711:\n",
	}
	for name, body := range files {
		if err := os.WriteFile(filepath.Join(images.EtcTarget, name), []byte(body), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, image := range []string{"etc-link", "etc-links"} {
		for _, rt := range testenv.Runtimes() {
			t.Run(image+"/"+rt, func(t *testing.T) {
				env := testenv.Start(t, testenv.Options{Registry: shared.Registry(t), Runtime: rt})
				testLinkedEtc(t, env, "docker.io/library/"+image+":latest")
				for name, body := range files {
					if now, err := os.ReadFile(filepath.Join(images.EtcTarget, name)); err != nil || string(now) != body {
						t.Errorf("%s on the node: %q, %v", name, now, err)
					}
				}
				if found := names(t, images.EtcTarget); len(found) != len(files) {
					t.Errorf("on the node there are %v", found)
				}
			})
		}
	}
}

func testLinkedEtc(t *testing.T, env *testenv.Env, image string) {
	env.Pull(image)
	config := env.PodConfig("pod")
	config.Hostname = "inside"
	config.DnsConfig = &runtimeapi.DNSConfig{Servers: []string{"192.0.2.1"}}
	pod := env.RunPod(config)
	c := env.ContainerConfig("main", "sleep 1000")
	c.Image = &runtimeapi.ImageSpec{Image: image}
	ctr := env.Run(pod, c, config)
	if got := env.Exec(ctr, "cat /etc/hostname; grep -c 192.0.2.1 /etc/resolv.conf; grep -c inside /etc/hosts"); got != "inside\n1\n1\n" {
		t.Errorf("the container has %q", got)
	}
	c = env.ContainerConfig("user", "true")
	c.Image = &runtimeapi.ImageSpec{Image: image}
	c.Linux = &runtimeapi.LinuxContainerConfig{SecurityContext: &runtimeapi.LinuxContainerSecurityContext{RunAsUsername: "intruder"}}
	_, err := env.Runtime.CreateContainer(env.Context(), &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: c, SandboxConfig: config})
	if status.Code(err) != codes.InvalidArgument && status.Code(err) != codes.NotFound {
		t.Errorf("a user of the node: %v", err)
	}
	env.RemoveAll()
	env.CheckLeaks()
}
