package oci

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	rspec "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/internal/id"
	"github.com/gantry-cri/gantry/internal/node"
)

// realInput is a request for a container that really runs: the host's /usr
// is its file system, and no pod's namespaces are joined.
func (c *running) realInput() ContainerInput {
	in := input(c.node)
	in.ID, in.OCIVersion, in.RootFS, in.CgroupsPath = id.Container(c.id), c.r.OCIVersion(), "rootfs", c.cgroup
	in.Join, in.ResolvConf, in.Hosts, in.Hostname, in.Shm = Namespaces{}, "", "", "", ""
	in.Image.WorkingDir, in.Image.Env = "", nil
	in.Config.Command = []string{"sleep", "1000"}
	in.Config.Mounts = []*runtimeapi.Mount{{ContainerPath: "/usr", HostPath: "/usr", Readonly: true}}
	return in
}

// startInput starts the container that change makes of realInput.
func startInput(t *testing.T, r *Runtime, change func(in *ContainerInput, c *containerConfig, sc *securityContext)) *running {
	t.Helper()
	return startSpec(t, r, func(c *running) *rspec.Spec {
		in := c.realInput()
		change(&in, in.Config, in.Config.Linux.SecurityContext)
		var err error
		if in.Host, err = Prepare(in.Config, PrepareOptions{}); err != nil {
			t.Fatal(err)
		}
		spec, err := ContainerSpec(in)
		if err != nil {
			t.Fatal(err)
		}
		return spec
	})
}

// sh runs a script in the container and returns what it prints.
func (c *running) sh(t *testing.T, script string) string {
	t.Helper()
	got, err := c.exec(20*time.Second, "sh", "-c", script)
	if err != nil || got.ExitCode != 0 {
		t.Errorf("%s: code %d, %q, %v", script, got.ExitCode, got.Stderr, err)
	}
	return strings.TrimSpace(string(got.Stdout))
}

// check is a script and what it must print.
type check struct{ script, want string }

// TestSpecsRun starts what the golden files describe under every runtime and
// looks at it from inside.
func TestSpecsRun(t *testing.T) {
	host := t.TempDir()
	for _, name := range []string{"hosts", "ro/x", "rw/x"} {
		path := filepath.Join(host, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	facts, err := node.Probe()
	if err != nil {
		t.Fatal(err)
	}

	caps := func(sets ...string) string {
		return fmt.Sprintf(`sed -nE 's/^Cap(%s):\s*0*//p' /proc/self/status`, strings.Join(sets, "|"))
	}
	for name, c := range map[string]struct {
		change func(in *ContainerInput, c *containerConfig, sc *securityContext)
		checks []check
	}{
		"default": {
			func(in *ContainerInput, c *containerConfig, sc *securityContext) { sc.Seccomp = &profile{} },
			[]check{
				{caps("Eff", "Bnd"), "a80425fb\na80425fb"},
				{caps("Inh", "Amb"), ""},
				{"sed -n 's/^Seccomp:\t//p' /proc/self/status", "2"},
				{"wc -c < /proc/timer_list", "0"},
				{"echo 1 2>/dev/null > /proc/sys/kernel/panic || echo refused", "refused"},
				{"mkdir 2>/dev/null /sys/fs/cgroup/memory/x /sys/x || echo refused", "refused"},
				{"touch /dev/shm/x /tmp/x /x && hostname && echo $HOME $HOSTNAME", "pod\n/root pod"},
				{"cat /proc/self/oom_score_adj; ls /proc/1/exe", "0\n/proc/1/exe"},
				{"mount -t tmpfs x /tmp 2>/dev/null || echo refused", "refused"},
			},
		},
		"privileged": {
			func(in *ContainerInput, c *containerConfig, sc *securityContext) {
				sc.Privileged, in.Sandbox.Linux.SecurityContext.Privileged = true, true
				in.Join = Namespaces{Network: Host, IPC: Host, UTS: Host, PID: Host}
			},
			[]check{
				{caps("Bnd") + " | sort -u | wc -l", "1"},
				{"mount -t tmpfs x /tmp && mkdir /tmp/y && echo mounted", "mounted"},
				{"stat -c %t:%T /dev/loop-control", "a:ed"},
				{"head -c 1 /dev/loop-control >/dev/null 2>/tmp/e; grep -c 'not permitted' /tmp/e || :", "0"},
				{"test $$ -gt 100 && echo host", "host"},
			},
		},
		"user": {
			func(in *ContainerInput, c *containerConfig, sc *securityContext) {
				in.User = User{UID: 1000, GID: 2000, Groups: []uint32{2000, 7}, Home: "/h"}
				sc.ReadonlyRootfs, sc.NoNewPrivs = true, true
				sc.Capabilities = &runtimeapi.Capability{
					AddAmbientCapabilities: []string{"NET_BIND_SERVICE"}, DropCapabilities: []string{"ALL"},
				}
				c.WorkingDir = "/tmp"
			},
			[]check{
				{"id -u; id -g; id -G; pwd; echo $HOME", "1000\n2000\n2000 7\n/tmp\n/h"},
				{caps("Eff", "Bnd", "Amb"), "400\n400\n400"},
				{"touch /x 2>/dev/null || touch /dev/shm/x && echo only shm", "only shm"},
				{"sed -n 's/^NoNewPrivs:\t//p' /proc/self/status", "1"},
			},
		},
		"mounts": {
			func(in *ContainerInput, c *containerConfig, sc *securityContext) {
				in.Hosts = filepath.Join(host, "hosts")
				sc.MaskedPaths, sc.ReadonlyPaths = []string{"/data/rw/x"}, []string{"/tmp"}
				c.Mounts = append(c.Mounts,
					&runtimeapi.Mount{ContainerPath: "/data/ro", HostPath: host + "/ro", Readonly: true, RecursiveReadOnly: true},
					&runtimeapi.Mount{ContainerPath: "/data/rw", HostPath: host + "/rw", MountOptions: []string{"noexec"}},
					&runtimeapi.Mount{ContainerPath: "/data/made", HostPath: host + "/made"})
				c.Devices = []*runtimeapi.Device{{HostPath: "/dev/null", ContainerPath: "/dev/nil", Permissions: "r"}}
			},
			[]check{
				{"cat /etc/hosts /data/ro/x", "hostsro/x"},
				{"touch /data/ro/y 2>/dev/null || echo refused", "refused"},
				{"touch /data/made/y && echo ok", "ok"},
				{"wc -c < /data/rw/x; touch /tmp/x 2>/dev/null || echo refused", "0\nrefused"},
				{"grep -c ' /data/rw [^ ]*noexec' /proc/self/mountinfo", "1"},
				{"cat /dev/nil; mknod /dev/mem2 c 1 1 && cat /dev/mem2 2>/dev/null || echo refused", "refused"},
			},
		},
		"resources": {
			func(in *ContainerInput, c *containerConfig, sc *securityContext) {
				c.Linux.Resources = &resources{
					MemoryLimitInBytes: 64 << 20, CpuQuota: 50000, CpuPeriod: 100000, CpuShares: 512, OomScoreAdj: -900,
				}
				in.PidsLimit = 50
				in.Rlimits = []rspec.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 1 << 30, Hard: 1 << 30}}
			},
			append([]check{
				{"cat /proc/self/oom_score_adj", fmt.Sprint(facts.ClampOOMScoreAdj(-900))},
				{"ulimit -Hn", fmt.Sprint(min(facts.Rlimits["RLIMIT_NOFILE"].Hard, 1<<30))},
			}, resourceChecks(facts)...),
		},
	} {
		for _, runtime := range runtimes {
			t.Run(name+"/"+runtime, func(t *testing.T) {
				r := startInput(t, openRuntime(t, runtime), c.change)
				for _, check := range c.checks {
					script := check.script
					if got := r.sh(t, script); got != check.want {
						t.Errorf("%s\n got %q\nwant %q", script, got, check.want)
					}
				}
			})
		}
	}
}

func resourceChecks(f node.Facts) []check {
	if f.CgroupV2 {
		return []check{
			{"cd /sys/fs/cgroup && cat memory.max cpu.max pids.max", "67108864\n50000 100000\n50"},
		}
	}
	return []check{
		{"cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/pids/pids.max", "67108864\n50"},
		{"cd /sys/fs/cgroup/cpu && cat cpu.cfs_quota_us cpu.shares", "50000\n512"},
	}
}

// TestSandboxRuns starts a pause container whose namespaces a second one joins.
func TestSandboxRuns(t *testing.T) {
	source := filepath.Join(t.TempDir(), "pause.c")
	if err := os.WriteFile(source, []byte("#include <unistd.h>\nint main(void) { for (;;) pause(); }\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	program := buildC(t, source)
	for _, name := range runtimes {
		t.Run(name, func(t *testing.T) {
			r := openRuntime(t, name)
			pause := startSpec(t, r, func(c *running) *rspec.Spec { return sandboxOf(t, c, program) })
			c := startInput(t, r, func(in *ContainerInput, c *containerConfig, sc *securityContext) {
				ns := func(kind string) string { return fmt.Sprintf("/proc/%d/ns/%s", pause.pid, kind) }
				in.Join = Namespaces{Network: Host, IPC: ns("ipc"), UTS: ns("uts"), PID: ns("pid")}
			})
			if got := c.sh(t, "hostname; cat /proc/sys/kernel/shm_rmid_forced"); got != "sandbox\n1" {
				t.Errorf("got %q", got)
			}
			if got := c.sh(t, "tr '\\0' ' ' < /proc/1/cmdline"); got != "/pause" {
				t.Errorf("process 1 is %q", got)
			}
			shm, err := os.ReadFile(procPath(pause.pid, "mountinfo"))
			if err != nil || !slices.ContainsFunc(strings.Split(string(shm), "\n"), func(line string) bool {
				return strings.Contains(line, " /dev/shm ") && strings.Contains(line, "size=1024k")
			}) {
				t.Errorf("no /dev/shm of 1 MiB: %v\n%s", err, shm)
			}
			c.stop() // before the init of its PID namespace
		})
	}
}

func sandboxOf(t *testing.T, c *running, program string) *rspec.Spec {
	t.Helper()
	body, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(c.rootfs(), "pause"), body, 0o755); err != nil {
		t.Fatal(err)
	}
	in := sandboxInput(func(in *SandboxInput, lc *runtimeapi.LinuxPodSandboxConfig, sc *sandboxContext) {
		in.Node, in.RootFS, in.CgroupsPath, in.OCIVersion = c.node, "rootfs", c.cgroup, c.r.OCIVersion()
		in.Hostname, in.ShmSize = "sandbox", 1<<20
		sc.Seccomp = &profile{}
		lc.Sysctls = map[string]string{"kernel.shm_rmid_forced": "1"}
	})
	in.NetNS = fmt.Sprintf("/proc/%d/ns/net", os.Getpid()) // the runtime needs one to join; this is the node's
	spec, err := SandboxSpec(in)
	if err != nil {
		t.Fatal(err)
	}
	return spec
}
