package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/test/testenv"
)

type (
	securityContext = runtimeapi.LinuxContainerSecurityContext
	profile         = runtimeapi.SecurityProfile
	capabilities    = runtimeapi.Capability
)

// runSecure runs a sleeping container with a security context.
func runSecure(env *testenv.Env, pod string, podConfig *runtimeapi.PodSandboxConfig, name string, sc *securityContext) string {
	config := env.ContainerConfig(name, "sleep 1000")
	config.Linux.SecurityContext = sc
	return env.Run(pod, config, podConfig)
}

// refused fails the test unless a container with the security context is
// refused with the code.
func refused(t *testing.T, env *testenv.Env, pod string, podConfig *runtimeapi.PodSandboxConfig, name string, sc *securityContext, want codes.Code) {
	t.Helper()
	config := env.ContainerConfig("refused", "true")
	config.Linux.SecurityContext = sc
	_, err := env.Runtime.CreateContainer(env.Context(), &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: config, SandboxConfig: podConfig})
	wantCode(t, name, err, want)
}

// statusLine is the value of a line of a process's status, as /proc tells it.
func statusLine(t *testing.T, status, key string) string {
	t.Helper()
	for line := range strings.Lines(status) {
		if name, value, _ := strings.Cut(line, ":"); name == key {
			return strings.TrimSpace(value)
		}
	}
	t.Fatalf("no %s in %q", key, status)
	return ""
}

// TestSupplementalGroups: with both policies, by number and by name, in the
// container, in an exec, and in the status.
func TestSupplementalGroups(t *testing.T) {
	withPod(t, func(t *testing.T, env *testenv.Env, pod string, podConfig *runtimeapi.PodSandboxConfig) {
		notForPeers(t)
		id := func(n int64) *runtimeapi.Int64Value { return &runtimeapi.Int64Value{Value: n} }
		const strict = runtimeapi.SupplementalGroupsPolicy_Strict
		for name, tt := range map[string]struct {
			sc       *securityContext
			uid, gid int64
			groups   []int64
		}{
			"merge":       {&securityContext{RunAsUser: id(1000), SupplementalGroups: []int64{1234}}, 1000, 1000, []int64{1000, 50000, 1234}},
			"strict":      {&securityContext{RunAsUser: id(1000), SupplementalGroups: []int64{1234}, SupplementalGroupsPolicy: strict}, 1000, 1000, []int64{1000, 1234}},
			"merge-name":  {&securityContext{RunAsUsername: "default-user", RunAsGroup: id(33)}, 1000, 33, []int64{33, 50000}},
			"strict-name": {&securityContext{RunAsUsername: "default-user", RunAsGroup: id(33), SupplementalGroupsPolicy: strict}, 1000, 33, []int64{33}},
			"unknown":     {&securityContext{RunAsUser: id(4242)}, 4242, 0, []int64{0}},
			"nobody":      {nil, 0, 0, []int64{0}},
		} {
			ctr := runSecure(env, pod, podConfig, name, tt.sc)
			same(t, name, env.Status(ctr).User.GetLinux(), &runtimeapi.LinuxContainerUser{Uid: tt.uid, Gid: tt.gid, SupplementalGroups: tt.groups})
			var groups []string
			for _, g := range tt.groups {
				groups = append(groups, strconv.FormatInt(g, 10))
			}
			for who, status := range map[string]string{"its init": readProc(t, initPID(t, ctr), "status"), "an exec": env.Exec(ctr, "cat /proc/self/status")} {
				wantEqual(t, name+": user of "+who, strings.Fields(statusLine(t, status, "Uid"))[1], fmt.Sprint(tt.uid))
				wantEqual(t, name+": group of "+who, strings.Fields(statusLine(t, status, "Gid"))[1], fmt.Sprint(tt.gid))
				got := strings.Fields(statusLine(t, status, "Groups"))
				wantEqual(t, name+": groups of "+who, len(got), len(groups))
				for _, g := range groups {
					wantContains(t, name+": groups of "+who, " "+strings.Join(got, " ")+" ", " "+g+" ")
				}
			}
		}
		refused(t, env, pod, podConfig, "user and name", &securityContext{RunAsUser: id(1), RunAsUsername: "root"}, codes.InvalidArgument)
		refused(t, env, pod, podConfig, "group alone", &securityContext{RunAsGroup: id(1)}, codes.InvalidArgument)
		refused(t, env, pod, podConfig, "negative user", &securityContext{RunAsUser: id(-1)}, codes.InvalidArgument)
		refused(t, env, pod, podConfig, "negative group", &securityContext{RunAsUser: id(1), SupplementalGroups: []int64{-1}}, codes.InvalidArgument)
		refused(t, env, pod, podConfig, "unknown policy", &securityContext{SupplementalGroupsPolicy: 7}, codes.InvalidArgument)
	})
}

// TestCapabilities: what the kernel says of a container's sets. None is outside
// the daemon's own bounding set, which is the test's too.
func TestCapabilities(t *testing.T) {
	withPod(t, func(t *testing.T, env *testenv.Env, pod string, podConfig *runtimeapi.PodSandboxConfig) {
		notForPeers(t)
		own, err := strconv.ParseUint(statusLine(t, readProc(t, os.Getpid(), "status"), "CapBnd"), 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		const usual = 0xa80425fb // of Docker, for many years
		bit := func(n int) uint64 { return 1 << n }
		user := &runtimeapi.Int64Value{Value: 1000}
		for name, tt := range map[string]struct {
			sc                           *securityContext
			bounding, effective, lasting uint64 // lasting: ambient and inheritable
		}{
			"default":    {nil, usual, usual, 0},
			"drop-all":   {&securityContext{Capabilities: &capabilities{DropCapabilities: []string{"ALL"}}}, 0, 0, 0},
			"one":        {&securityContext{Capabilities: &capabilities{DropCapabilities: []string{"ALL"}, AddCapabilities: []string{"NET_BIND_SERVICE"}}}, bit(unix.CAP_NET_BIND_SERVICE), bit(unix.CAP_NET_BIND_SERVICE), 0},
			"add":        {&securityContext{Capabilities: &capabilities{AddCapabilities: []string{"NET_ADMIN", "cap_sys_ptrace"}}}, usual | bit(unix.CAP_NET_ADMIN) | bit(unix.CAP_SYS_PTRACE), usual | bit(unix.CAP_NET_ADMIN) | bit(unix.CAP_SYS_PTRACE), 0},
			"drop":       {&securityContext{Capabilities: &capabilities{DropCapabilities: []string{"CHOWN", "KILL"}}}, usual &^ (bit(unix.CAP_CHOWN) | bit(unix.CAP_KILL)), usual &^ (bit(unix.CAP_CHOWN) | bit(unix.CAP_KILL)), 0},
			"add-all":    {&securityContext{Capabilities: &capabilities{AddCapabilities: []string{"ALL"}}}, own, own, 0},
			"all-but":    {&securityContext{Capabilities: &capabilities{AddCapabilities: []string{"ALL"}, DropCapabilities: []string{"SYS_ADMIN"}}}, own &^ bit(unix.CAP_SYS_ADMIN), own &^ bit(unix.CAP_SYS_ADMIN), 0},
			"user":       {&securityContext{RunAsUser: user}, usual, 0, 0},
			"ambient":    {&securityContext{RunAsUser: user, Capabilities: &capabilities{AddAmbientCapabilities: []string{"NET_BIND_SERVICE"}}}, usual, bit(unix.CAP_NET_BIND_SERVICE), bit(unix.CAP_NET_BIND_SERVICE)},
			"ambient-up": {&securityContext{RunAsUser: user, Capabilities: &capabilities{DropCapabilities: []string{"ALL"}, AddAmbientCapabilities: []string{"NET_ADMIN"}}}, bit(unix.CAP_NET_ADMIN), bit(unix.CAP_NET_ADMIN), bit(unix.CAP_NET_ADMIN)},
		} {
			ctr := runSecure(env, pod, podConfig, name, tt.sc)
			for who, status := range map[string]string{"its init": readProc(t, initPID(t, ctr), "status"), "an exec": env.Exec(ctr, "cat /proc/self/status")} {
				for key, want := range map[string]uint64{"CapBnd": tt.bounding, "CapEff": tt.effective, "CapPrm": tt.effective, "CapAmb": tt.lasting, "CapInh": tt.lasting} {
					wantEqual(t, name+": "+key+" of "+who, statusLine(t, status, key), fmt.Sprintf("%016x", want&own))
				}
			}
			if name == "drop" {
				wantEqual(t, "chown", env.Exec(ctr, "touch /tmp/x; chown 1 /tmp/x 2>/dev/null || echo refused"), "refused\n")
			}
		}
		refused(t, env, pod, podConfig, "unknown", &securityContext{Capabilities: &capabilities{AddCapabilities: []string{"FLY"}}}, codes.InvalidArgument)
		refused(t, env, pod, podConfig, "unknown drop", &securityContext{Capabilities: &capabilities{DropCapabilities: []string{"FLY"}}}, codes.InvalidArgument)
		if own&bit(unix.CAP_SYS_RESOURCE) == 0 {
			refused(t, env, pod, podConfig, "one that the daemon lacks", &securityContext{Capabilities: &capabilities{AddCapabilities: []string{"SYS_RESOURCE"}}}, codes.Unimplemented)
		}
	})
}

// TestPrivileged: all that the daemon has, the node's devices, and nothing that
// confines; only in a privileged pod.
func TestPrivileged(t *testing.T) {
	each(t, func(t *testing.T, env *testenv.Env) {
		notForPeers(t)
		env.Pull(testenv.Busybox)
		plain := env.PodConfig("plain")
		refused(t, env, env.RunPod(plain), plain, "privileged in a pod that is not", &securityContext{Privileged: true}, codes.InvalidArgument)
		config := env.PodConfig("pod")
		config.Linux.SecurityContext = &runtimeapi.LinuxSandboxSecurityContext{Privileged: true}
		ctr := runSecure(env, env.RunPod(config), config, "main", &securityContext{
			Privileged: true, Seccomp: &profile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault},
			Capabilities: &capabilities{DropCapabilities: []string{"ALL"}},
		})
		status := env.Exec(ctr, "cat /proc/self/status")
		wantEqual(t, "capabilities", statusLine(t, status, "CapEff"), statusLine(t, readProc(t, os.Getpid(), "status"), "CapBnd"))
		wantEqual(t, "seccomp", statusLine(t, status, "Seccomp"), "0")
		env.Exec(ctr, ": < /dev/loop-control; mkdir /m && mount -t tmpfs none /m; test -w /sys; cat /proc/keys > /dev/null")
	})
}

// TestNoNewPrivileges: the process's flag, also of an exec.
func TestNoNewPrivileges(t *testing.T) {
	withPod(t, func(t *testing.T, env *testenv.Env, pod string, podConfig *runtimeapi.PodSandboxConfig) {
		for name, sc := range map[string]*securityContext{"0": nil, "1": {NoNewPrivs: true}} {
			ctr := runSecure(env, pod, podConfig, "nnp"+name, sc)
			wantEqual(t, "init", statusLine(t, readProc(t, initPID(t, ctr), "status"), "NoNewPrivs"), name)
			wantEqual(t, "exec", statusLine(t, env.Exec(ctr, "cat /proc/self/status"), "NoNewPrivs"), name)
		}
	})
}

// TestSeccomp: each kind of profile, by the kernel's account and by a system
// call that the profile denies.
func TestSeccomp(t *testing.T) {
	withPod(t, func(t *testing.T, env *testenv.Env, pod string, podConfig *runtimeapi.PodSandboxConfig) {
		notForPeers(t)
		file := func(name, text string) string {
			path := filepath.Join(env.Dir, name)
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			return path
		}
		denied := file("denied.json", `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}`)
		localhost := func(path string) *profile {
			return &profile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: path}
		}
		old := func(path string) *securityContext {
			//lint:ignore SA1019 old clients still set it
			return &securityContext{SeccompProfilePath: path}
		}
		const try = "mkdir /made 2>/dev/null && echo made; unshare -U true 2>/dev/null && echo unshared; grep Seccomp: /proc/self/status"
		for name, tt := range map[string]struct {
			sc   *securityContext
			want string
		}{
			"none":          {nil, "made\nunshared\nSeccomp:\t0\n"},
			"unconfined":    {&securityContext{Seccomp: &profile{ProfileType: runtimeapi.SecurityProfile_Unconfined}}, "made\nunshared\nSeccomp:\t0\n"},
			"default":       {&securityContext{Seccomp: &profile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}}, "made\nSeccomp:\t2\n"},
			"default-old":   {old("runtime/default"), "made\nSeccomp:\t2\n"},
			"localhost":     {&securityContext{Seccomp: localhost(denied)}, "unshared\nSeccomp:\t2\n"},
			"localhost-old": {old("localhost/" + denied), "unshared\nSeccomp:\t2\n"},
		} {
			ctr := runSecure(env, pod, podConfig, name, tt.sc)
			wantEqual(t, name, env.Exec(ctr, try), tt.want)
			mode := strings.Fields(tt.want)
			wantEqual(t, name+": init", statusLine(t, readProc(t, initPID(t, ctr), "status"), "Seccomp"), mode[len(mode)-1])
		}
		for name, path := range map[string]string{
			"missing": filepath.Join(env.Dir, "missing.json"), "relative": "profile.json", "no JSON": file("bad.json", "{"), "nothing": "",
			"directory": env.Dir, "unknown action": file("action.json", `{"defaultAction":"SCMP_ACT_WISH"}`),
		} {
			config := env.ContainerConfig("refused", "true")
			config.Linux.SecurityContext = &securityContext{Seccomp: localhost(path)}
			_, err := env.Runtime.CreateContainer(env.Context(), &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: config, SandboxConfig: podConfig})
			if name == "unknown action" {
				wantNotOK(t, name, err) // the runtime finds it out
				continue
			}
			wantCode(t, name, err, codes.InvalidArgument)
		}
	})
}

// TestMaskedPaths: those of the request, and those of every container that
// names none.
func TestMaskedPaths(t *testing.T) {
	withPod(t, func(t *testing.T, env *testenv.Env, pod string, podConfig *runtimeapi.PodSandboxConfig) {
		usual := runSecure(env, pod, podConfig, "usual", nil)
		wantEqual(t, "masked by default", env.Exec(usual, "cat /proc/keys; ls /sys/firmware"), "")
		wantEqual(t, "read-only by default", env.Exec(usual, "echo 1 2>/dev/null > /proc/sys/kernel/core_uses_pid || echo refused"), "refused\n")
		ctr := runSecure(env, pod, podConfig, "asked", &securityContext{
			MaskedPaths: []string{"/proc/version", "/etc/group", "/home", "/no/such/path"}, ReadonlyPaths: []string{"/tmp", "/etc/passwd", "/none"},
		})
		wantEqual(t, "masked", env.Exec(ctr, "cat /proc/version /etc/group; ls /home"), "")
		wantEqual(t, "read-only", env.Exec(ctr, "touch /tmp/x 2>/dev/null || echo refused; echo x 2>/dev/null >> /etc/passwd || echo refused; touch /var/tmp/x && echo written"),
			"refused\nrefused\nwritten\n")
		if !testenv.Peer() {
			refused(t, env, pod, podConfig, "relative", &securityContext{MaskedPaths: []string{"proc"}}, codes.InvalidArgument)
			refused(t, env, pod, podConfig, "relative", &securityContext{ReadonlyPaths: []string{"proc"}}, codes.InvalidArgument)
		}
	})
}

// TestSysctlsOfThePod: safe and unsafe ones are set in the pod's namespaces, and
// what would reach beyond them is refused before anything is made.
func TestSysctlsOfThePod(t *testing.T) {
	each(t, func(t *testing.T, env *testenv.Env) {
		notForPeers(t)
		env.Pull(testenv.Busybox)
		config := env.PodConfig("pod")
		config.Linux.Sysctls = map[string]string{
			"net.ipv4.ip_unprivileged_port_start": "80", "kernel.msgmax": "9000", "net/ipv4/tcp_syncookies": "0", "fs.mqueue.msg_max": "20",
		}
		_, ctr := runIn(env, config, "main")
		wantEqual(t, "sysctls", env.Exec(ctr, "cd /proc/sys; cat net/ipv4/ip_unprivileged_port_start kernel/msgmax net/ipv4/tcp_syncookies fs/mqueue/msg_max"), "80\n9000\n0\n20\n")
		for name, tt := range map[string]struct {
			sysctl  string
			options *runtimeapi.NamespaceOption
		}{
			"no namespace":       {"kernel.panic", nil},
			"no namespace, file": {"fs.file-max", nil},
			"the node's network": {"net.ipv4.ip_forward", &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE}},
			"the node's IPC":     {"kernel.shm_rmid_forced", &runtimeapi.NamespaceOption{Ipc: runtimeapi.NamespaceMode_NODE}},
			"a way out":          {"net/../kernel/panic", nil},
		} {
			bad := env.PodConfig("bad")
			bad.Linux.Sysctls = map[string]string{tt.sysctl: "1"}
			bad.Linux.SecurityContext = &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: tt.options}
			_, err := env.Runtime.RunPodSandbox(env.Context(), &runtimeapi.RunPodSandboxRequest{Config: bad})
			wantCode(t, name, err, codes.InvalidArgument)
			wantContains(t, name, fmt.Sprint(err), tt.sysctl)
		}
	})
}

// TestDevices: a device is usable as far as was asked for, whatever node of it
// the container makes for itself.
func TestDevices(t *testing.T) {
	withPod(t, func(t *testing.T, env *testenv.Env, pod string, podConfig *runtimeapi.PodSandboxConfig) {
		notForPeers(t)
		const device = "/dev/loop-control" // of no container
		const try = "for d in /dev/asked /dev/loop-control /own; do (test -c $d && : < $d) 2>/dev/null && echo -n $d:r; (test -c $d && : > $d) 2>/dev/null && echo -n $d:w; echo; done"
		var st unix.Stat_t
		if err := unix.Stat(device, &st); err != nil {
			t.Fatal(err)
		}
		mknod := fmt.Sprintf("mknod /own c %d %d; ", unix.Major(st.Rdev), unix.Minor(st.Rdev))
		for permissions, want := range map[string]string{"": "\n\n\n", "r": "/dev/asked:r\n\n/own:r\n", "rw": "/dev/asked:r/dev/asked:w\n\n/own:r/own:w\n", "w": "/dev/asked:w\n\n/own:w\n"} {
			config := env.ContainerConfig("permissions-"+permissions, "sleep 1000")
			if permissions != "" {
				config.Devices = []*runtimeapi.Device{{HostPath: device, ContainerPath: "/dev/asked", Permissions: permissions}}
			}
			ctr := env.Run(pod, config, podConfig)
			wantEqual(t, "permissions "+permissions, env.Exec(ctr, mknod+try), want)
		}
		for name, d := range map[string]*runtimeapi.Device{
			"missing":             {HostPath: "/dev/no-such-device", ContainerPath: "/dev/x"},
			"no device":           {HostPath: "/etc/passwd", ContainerPath: "/dev/x"},
			"unknown permissions": {HostPath: device, ContainerPath: "/dev/x", Permissions: "rwx"},
			"relative":            {HostPath: "dev/null", ContainerPath: "/dev/x"},
		} {
			config := env.ContainerConfig("refused", "true")
			config.Devices = []*runtimeapi.Device{d}
			_, err := env.Runtime.CreateContainer(env.Context(), &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: config, SandboxConfig: podConfig})
			wantCode(t, name, err, codes.InvalidArgument)
		}
	})
}

// TestLimitsOfTheDaemon: a score and limits that the daemon can't give are
// clamped, and that is told once, not for each container.
func TestLimitsOfTheDaemon(t *testing.T) {
	withPod(t, func(t *testing.T, env *testenv.Env, pod string, podConfig *runtimeapi.PodSandboxConfig) {
		notForPeers(t)
		lowest := strings.TrimSpace(readProc(t, env.DaemonPID(), "oom_score_adj"))
		if statusLine(t, readProc(t, env.DaemonPID(), "status"), "CapEff") == "000001ffffffffff" {
			lowest = "-900"
		}
		for i := range 3 {
			config := env.ContainerConfig(fmt.Sprint("c", i), "sleep 1000")
			config.Linux.Resources = &runtimeapi.LinuxContainerResources{OomScoreAdj: -900}
			ctr := env.Run(pod, config, podConfig)
			wantEqual(t, "OOM score", strings.TrimSpace(readProc(t, initPID(t, ctr), "oom_score_adj")), lowest)
			wantEqual(t, "limits", readProc(t, initPID(t, ctr), "limits"), readProc(t, env.DaemonPID(), "limits"))
		}
		log, err := os.ReadFile(filepath.Join(env.Dir, "daemon.log"))
		if err != nil {
			t.Fatal(err)
		}
		if lowest != "-900" {
			wantEqual(t, "lines that tell it", strings.Count(string(log), "oom_score_adj of a container changed"), 1)
		}
	})
}
