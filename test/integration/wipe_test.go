package integration

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/internal/wipe"
	"github.com/gantry-cri/gantry/test/testenv"
)

// fill makes pods and containers in every state that lasts, and returns a pod
// with a running container, and the container.
func fill(t *testing.T, env *testenv.Env) (pod, container string) {
	t.Helper()
	env.Pull(testenv.Busybox)
	config := env.PodConfig("main")
	config.PortMappings = []*runtimeapi.PortMapping{{ContainerPort: 80, HostPort: int32(freePort(t))}}
	pod = env.RunPod(config)
	container = env.Run(pod, env.ContainerConfig("running", "sleep 1000 & sleep 1000"), config)
	env.WaitExit(env.Run(pod, env.ContainerConfig("ended", "echo x >/file"), config))
	env.Create(pod, env.ContainerConfig("created", "sleep 1000"), config)
	onNode := env.PodConfig("node")
	onNode.Linux.SecurityContext = &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE}}
	env.Run(env.RunPod(onNode), env.ContainerConfig("running", "sleep 1000"), onNode)
	env.StopPod(env.RunPod(env.PodConfig("stopped")))
	return pod, container
}

// wiped is a node on which nothing of Gantry is left but images, if kept says so.
func wiped(t *testing.T, env *testenv.Env, kept bool) {
	t.Helper()
	env.CheckNothingLeft()
	for _, dir := range []string{env.RunRoot, filepath.Join(env.Root, "containers"), filepath.Join(env.Root, "network"), filepath.Join(env.Root, "bin")} {
		if _, err := os.Lstat(dir); err == nil {
			t.Errorf("%s is there after a wipe", dir)
		}
	}
	if _, err := os.Lstat(env.Root); (err == nil) != kept {
		t.Errorf("%s after a wipe: %v", env.Root, err)
	}
}

// TestWipe: pods end, in whatever state they are; images stay until they are to
// go, too. With nothing there it has nothing to do.
func TestWipe(t *testing.T) {
	each(t, func(t *testing.T, env *testenv.Env) {
		notForPeers(t)
		fill(t, env)
		env.Kill9()
		out, code := gantryd(t, env, "wipe")
		wantEqual(t, "exit code without a terminal", code, 1)
		wantContains(t, "without a terminal", out, "--yes is not given")
		wantContains(t, "what there is", out, "3 pods, 4 containers")
		wantContains(t, "what there is", out, "1 images in "+env.Root)

		wantContains(t, "the end", mustGantryd(t, env, "wipe", "--yes"), "Done.")
		wiped(t, env, true)
		wantContains(t, "again", mustGantryd(t, env, "wipe", "--yes"), "nothing to wipe")

		env.StartDaemon()
		if imageStatus(t, env, testenv.Busybox) == nil {
			t.Error("the image is gone")
		}
		fill(t, env)
		env.Kill9()
		mustGantryd(t, env, "wipe", "--yes", "--images")
		wiped(t, env, false)
		wantContains(t, "again", mustGantryd(t, env, "wipe", "--yes", "--images"), "nothing to wipe")

		env.StartDaemon()
		if imageStatus(t, env, testenv.Busybox) != nil {
			t.Error("the image is still there")
		}
		env.RunPod(env.PodConfig("later"))
	})
}

// TestWipeAsks: on a terminal it shows what there is and takes only yes for yes.
func TestWipeAsks(t *testing.T) {
	each(t, func(t *testing.T, env *testenv.Env) {
		notForPeers(t)
		env.RunPod(env.PodConfig("pod"))
		env.Kill9()
		for _, answer := range []string{"n\n", "\n", "\x04"} {
			out, code := wipeOnTerminal(t, env, answer)
			wantEqual(t, "exit code", code, 1)
			wantContains(t, "the question", out, "1 pods, 0 containers")
			wantContains(t, "the question", out, "Go on? [y/N] ")
			wantContains(t, "the answer", out, "nothing was done")
		}
		env.StartDaemon()
		if list, err := env.Runtime.ListPodSandbox(env.Context(), &runtimeapi.ListPodSandboxRequest{}); err != nil || len(list.Items) != 1 {
			t.Errorf("pods after no: %v, %v", list, err)
		}
		env.Kill9()
		out, code := wipeOnTerminal(t, env, "y\n")
		if code != 0 {
			t.Errorf("exit code %d: %s", code, out)
		}
		wiped(t, env, true)
	})
}

// wipeOnTerminal runs gantryd wipe on a pseudo-terminal at which somebody types.
func wipeOnTerminal(t *testing.T, env *testenv.Env, typed string) (string, int) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	terminal, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	if _, err := master.WriteString(typed); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(env.Context(), testenv.Binary(t, "gantryd"), append([]string{"wipe"}, env.Args()...)...)
	cmd.Stdin = terminal
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// TestWipeBesideDaemon: nothing is touched while a daemon runs.
func TestWipeBesideDaemon(t *testing.T) {
	withContainer(t, func(t *testing.T, env *testenv.Env, container string) {
		notForPeers(t)
		out, code := gantryd(t, env, "wipe", "--yes", "--images")
		wantEqual(t, "exit code", code, 1)
		wantContains(t, "beside a daemon", out, "stop it first: systemctl stop gantry")
		wantEqual(t, "exec", env.Exec(container, "echo yes"), "yes\n")
	})
}

// TestWipeHungPlugin: a CNI plugin that hangs holds up nothing but the addresses
// that it was to give back, and the next run finishes.
func TestWipeHungPlugin(t *testing.T) {
	dir := t.TempDir()
	hang := filepath.Join(dir, "hang")
	script(t, dir, "sometimes", `if [ "$CNI_COMMAND" = VERSION ]; then
	echo '{"cniVersion":"1.0.0","supportedVersions":["0.4.0","1.0.0"]}'
	exit
fi
conf=$(cat)
if [ "$CNI_COMMAND" = ADD ]; then
	printf '%s' "$conf" | jq -c '.prevResult'
	exit
fi
[ ! -e `+hang+`-$(printf '%s' "$conf" | jq -r .name) ] || sleep 1000
`)
	eachWith(t, testenv.Options{PluginDir: dir, Config: `cni_timeout = "3s"`, NoNetwork: true}, func(t *testing.T, env *testenv.Env) {
		notForPeers(t)
		writeHanging(t, env)
		env.Pull(testenv.Busybox)
		config := env.PodConfig("pod")
		pod := env.RunPod(config)
		env.Run(pod, env.ContainerConfig("main", "sleep 1000"), config)
		env.Kill9()
		hang := hang + "-" + env.Name
		touch(t, hang)
		prompt(t, "a wipe with a plugin that hangs", 30*time.Second, func() {
			out, code := gantryd(t, env, "wipe", "--yes")
			wantEqual(t, "exit code", code, 1)
			wantContains(t, "what is left", out, "left: network of pod "+pod+": not given back: ")
			wantContains(t, "why", out, "sometimes was killed: not done within 3s")
		})
		for _, left := range env.Leaks() {
			if kind, _, _ := strings.Cut(left, ":"); kind == "process" || kind == "cgroup" {
				t.Errorf("left %s", left)
			}
		}
		if kept := mountsBelow(t, filepath.Join(env.Root, "network")); len(kept) != 1 {
			t.Errorf("of the namespaces that a DEL needs there are %v", kept)
		}
		if err := os.Remove(hang); err != nil {
			t.Fatal(err)
		}
		mustGantryd(t, env, "wipe", "--yes")
		wiped(t, env, true)
	})
}

// TestWipeMissingRuntime: the runtime's binary is gone.
func TestWipeMissingRuntime(t *testing.T) {
	each(t, func(t *testing.T, env *testenv.Env) {
		notForPeers(t)
		binary := filepath.Join(env.Dir, "runtime")
		copyFile(t, testenv.Program(t, env.RuntimeName), binary)
		configure(t, env, "[runtimes.other]\npath = \""+binary+"\"\n")
		env.Pull(testenv.Busybox)
		config := env.PodConfig("pod")
		env.Run(runWith(t, env, config, "other"), env.ContainerConfig("main", "sleep 1000"), config)
		env.Kill9()
		if err := os.Remove(binary); err != nil {
			t.Fatal(err)
		}
		mustGantryd(t, env, "wipe", "--yes")
		wiped(t, env, true)
	})
}

// TestWipeHungRuntime: the runtime can't delete anything any more.
func TestWipeHungRuntime(t *testing.T) {
	eachWith(t, testenv.Options{Config: `runtime_timeout = "3s"`}, func(t *testing.T, env *testenv.Env) {
		notForPeers(t)
		hang := filepath.Join(env.Dir, "hang")
		binary := script(t, env.Dir, "sometimes", fmt.Sprintf(`case " $* " in *" delete "*) [ ! -e %s ] || sleep 1000 ;; esac
exec %s "$@"
`, hang, testenv.Program(t, env.RuntimeName)))
		configure(t, env, "[runtimes.sometimes]\npath = \""+binary+"\"\n")
		env.Pull(testenv.Busybox)
		config := env.PodConfig("pod")
		env.Run(runWith(t, env, config, "sometimes"), env.ContainerConfig("main", "sleep 1000"), config)
		env.Kill9()
		touch(t, hang)
		prompt(t, "a wipe with a runtime that hangs", time.Minute, func() { mustGantryd(t, env, "wipe", "--yes") })
		wiped(t, env, true)
	})
}

// TestWipeDamaged: whatever record can't be read, or is gone, nothing stays.
func TestWipeDamaged(t *testing.T) {
	garbage := func(t *testing.T, file string) {
		if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	remove := func(t *testing.T, path string) {
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
	}
	for name, damage := range map[string]func(t *testing.T, env *testenv.Env, pod, podDir, containerDir string){
		"pod":         func(t *testing.T, _ *testenv.Env, _, pod, _ string) { garbage(t, pod+"/pod.json") },
		"pod's phase": func(t *testing.T, _ *testenv.Env, _, pod, _ string) { garbage(t, pod+"/state.json") },
		"no phase":    func(t *testing.T, _ *testenv.Env, _, pod, _ string) { remove(t, pod+"/state.json") },
		"container":   func(t *testing.T, _ *testenv.Env, _, _, ctr string) { garbage(t, ctr+"/container.json") },
		"pod, no monitor": func(t *testing.T, env *testenv.Env, _, pod, _ string) {
			garbage(t, pod+"/pod.json")
			killMonitors(t, env)
		},
		"network": func(t *testing.T, env *testenv.Env, pod, _, _ string) {
			garbage(t, filepath.Join(env.Root, "network", "attachments", pod+".json"))
		},
		"network and its cache": func(t *testing.T, env *testenv.Env, pod, _, _ string) {
			garbage(t, filepath.Join(env.Root, "network", "attachments", pod+".json"))
			remove(t, filepath.Join(env.Root, "network", "cache"))
		},
		"boot": func(t *testing.T, env *testenv.Env, _, _, _ string) {
			garbage(t, filepath.Join(env.RunRoot, "boot_id"))
		},
		"store": func(t *testing.T, env *testenv.Env, _, _, _ string) {
			garbage(t, filepath.Join(env.Root, "storage", "overlay-layers", "layers.json"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, env *testenv.Env) {
				notForPeers(t)
				pod, container := fill(t, env)
				env.Kill9()
				dir := filepath.Join(env.RunRoot, "pods", pod)
				damage(t, env, pod, dir, filepath.Join(dir, "containers", container))
				mustGantryd(t, env, "wipe", "--yes")
				wiped(t, env, true)
			})
		})
	}
}

// TestWipeSandbox: gVisor's containers are no processes of the node.
func TestWipeSandbox(t *testing.T) {
	for _, damaged := range []bool{false, true} {
		t.Run(fmt.Sprintf("damaged=%v", damaged), func(t *testing.T) {
			withSandbox(t, func(t *testing.T, env *testenv.Env, pod string, config podSandboxConfig) {
				env.Run(pod, env.ContainerConfig("main", "sleep 1000"), config)
				env.Kill9()
				if damaged {
					if err := os.WriteFile(filepath.Join(env.RunRoot, "pods", pod, "pod.json"), nil, 0o600); err != nil {
						t.Fatal(err)
					}
				}
				mustGantryd(t, env, "wipe", "--yes")
				wiped(t, env, true)
			})
		})
	}
}

// TestWipeKubeletCgroups: the cgroup that a pod was put into is the kubelet's and
// stays; what is the pod's in it goes, damaged or not.
func TestWipeKubeletCgroups(t *testing.T) {
	for _, damaged := range []bool{false, true} {
		t.Run(fmt.Sprintf("damaged=%v", damaged), func(t *testing.T) {
			each(t, func(t *testing.T, env *testenv.Env) {
				notForPeers(t)
				env.Pull(testenv.Busybox)
				config := env.PodConfig("pod")
				config.Linux.CgroupParent = env.CgroupParent + "-kubelet/pod1"
				pod := env.RunPod(config)
				env.Run(pod, env.ContainerConfig("main", "sleep 1000"), config)
				env.Kill9()
				if damaged {
					if err := os.WriteFile(filepath.Join(env.RunRoot, "pods", pod, "pod.json"), nil, 0o600); err != nil {
						t.Fatal(err)
					}
				}
				mustGantryd(t, env, "wipe", "--yes")
				wiped(t, env, true)
				found, err := filepath.Glob("/sys/fs/cgroup/*" + config.Linux.CgroupParent + "/*" + pod + "*")
				if err != nil || len(found) > 0 {
					t.Errorf("the pod's cgroups are left: %v, %v", found, err)
				}
				env.RemoveCgroup(env.CgroupParent + "-kubelet")
			})
		})
	}
}

// TestWipeWithoutRecords: the run root was removed by hand, and pods run on.
func TestWipeWithoutRecords(t *testing.T) {
	each(t, func(t *testing.T, env *testenv.Env) {
		notForPeers(t)
		fill(t, env)
		env.Kill9()
		for _, mount := range mountsBelow(t, env.RunRoot) {
			if err := unix.Unmount(mount, unix.MNT_DETACH); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.RemoveAll(env.RunRoot); err != nil {
			t.Fatal(err)
		}
		mustGantryd(t, env, "wipe", "--yes")
		wiped(t, env, true)
	})
}

// TestWipeStoreGone: a store that can't be opened keeps no pod from being ended,
// and goes with the images.
func TestWipeStoreGone(t *testing.T) {
	each(t, func(t *testing.T, env *testenv.Env) {
		notForPeers(t)
		fill(t, env)
		env.Kill9()
		store := filepath.Join(env.Root, "storage")
		for _, mount := range mountsBelow(t, store) {
			if err := unix.Unmount(mount, unix.MNT_DETACH); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Rename(store, filepath.Join(env.Dir, "store.was")); err != nil {
			t.Fatal(err)
		}
		touch(t, store)
		out, code := gantryd(t, env, "wipe", "--yes")
		wantEqual(t, "exit code", code, 1)
		wantContains(t, "what is left", out, "left: the images: ")
		mustGantryd(t, env, "wipe", "--yes", "--images")
		wiped(t, env, false)
	})
}

// TestWipeStaysInside: links are not followed, others' files stay, and others'
// mounts are not passed.
func TestWipeStaysInside(t *testing.T) {
	each(t, func(t *testing.T, env *testenv.Env) {
		notForPeers(t)
		_, container := fill(t, env)
		victim := filepath.Join(env.Dir, "victim")
		if err := os.MkdirAll(filepath.Join(victim, "sub"), 0o755); err != nil {
			t.Fatal(err)
		}
		touch(t, filepath.Join(victim, "sub", "file"))
		env.Kill9()
		upper := filepath.Join(env.Root, "containers", container, "upper")
		for _, link := range []string{
			filepath.Join(upper, "trap"),
			filepath.Join(env.Root, "containers", strings.Repeat("b", 64)),
			filepath.Join(env.RunRoot, "pods", strings.Repeat("a", 64)),
			filepath.Join(env.RunRoot, "naming", "trap"),
			filepath.Join(env.Root, "pieces", "trap"),
		} {
			if err := os.Symlink(victim, link); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.RemoveAll(filepath.Join(env.Root, "tmp")); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(victim, filepath.Join(env.Root, "tmp")); err != nil {
			t.Fatal(err)
		}
		touch(t, filepath.Join(env.RunRoot, "mine"))
		mounted := filepath.Join(upper, "mounted")
		if err := os.Mkdir(mounted, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount(victim, mounted, "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		out, code := gantryd(t, env, "wipe", "--yes", "--images")
		wantEqual(t, "exit code with a mount of others", code, 1)
		wantContains(t, "a mount of others", out, "unmount it first: "+mounted)
		if err := unix.Unmount(mounted, 0); err != nil {
			t.Fatal(err)
		}
		out = mustGantryd(t, env, "wipe", "--yes", "--images")
		wantContains(t, "what is told", out, env.RunRoot+" stays: it has mine, which is not Gantry's")
		wantContains(t, "what is told", out, "tmp was a symbolic link")
		env.CheckNothingLeft()
		if _, err := os.Stat(filepath.Join(victim, "sub", "file")); err != nil {
			t.Errorf("another's file: %v", err)
		}
		if _, err := os.Stat(filepath.Join(env.RunRoot, "mine")); err != nil {
			t.Errorf("another's file in the run root: %v", err)
		}
	})
}

// TestWipeElsewhere: a directory in which no gantryd has worked is left alone,
// though its names are the same.
func TestWipeElsewhere(t *testing.T) {
	each(t, func(t *testing.T, env *testenv.Env) {
		notForPeers(t)
		env.StopDaemon()
		other := t.TempDir()
		if err := os.MkdirAll(filepath.Join(other, "containers", "storage"), 0o755); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(testenv.Binary(t, "gantryd"), append(append([]string{"wipe", "--yes", "--images"}, env.Args()...), "--root", other)...)
		text, err := cmd.CombinedOutput()
		if err == nil {
			t.Error("another's directory was wiped")
		}
		wantContains(t, "another's directory", string(text), "no gantryd has ever worked in "+other)
		if _, err := os.Stat(filepath.Join(other, "containers", "storage")); err != nil {
			t.Error(err)
		}
	})
}

// TestWipeKilled: a wipe that is killed, wherever it is, is finished by the next.
func TestWipeKilled(t *testing.T) {
	each(t, func(t *testing.T, env *testenv.Env) {
		notForPeers(t)
		fill(t, env)
		env.Kill9()
		for range 12 {
			cmd := exec.Command(testenv.Binary(t, "gantryd"), append([]string{"wipe", "--yes"}, env.Args()...)...)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(rand.N(700 * time.Millisecond))
			_ = cmd.Process.Kill() // it may have ended
			_ = cmd.Wait()
		}
		mustGantryd(t, env, "wipe", "--yes")
		wiped(t, env, true)
	})
}

// mountsBelow lists the mount points below dir, the latest first.
func mountsBelow(t *testing.T, dir string) []string {
	t.Helper()
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) > 4 && strings.HasPrefix(fields[4], dir+"/") {
			found = append([]string{fields[4]}, found...)
		}
	}
	return found
}

// killMonitors kills the monitors of the environment's pods.
func killMonitors(t *testing.T, env *testenv.Env) {
	t.Helper()
	pids, err := wipe.Monitors(filepath.Join(env.Root, "bin"))
	if err != nil || len(pids) == 0 {
		t.Fatalf("monitors: %v, %v", pids, err)
	}
	for _, pid := range pids {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
}

func writeHanging(t *testing.T, env *testenv.Env) {
	t.Helper()
	if err := env.WriteNetwork(withPlugin(env, "sometimes")); err != nil {
		t.Fatal(err)
	}
	env.Eventually("the network to be noticed", func() error {
		if c := condition(t, env, "NetworkReady"); !c.Status {
			return errors.New(c.Message)
		}
		return nil
	})
}
