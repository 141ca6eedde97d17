package check

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gantry-cri/gantry/internal/config"
	"github.com/gantry-cri/gantry/internal/network"
	"github.com/gantry-cri/gantry/internal/node"
)

// good is a node on which everything is well, with files below a directory of
// the test's.
func good(t *testing.T) *Node {
	t.Helper()
	n := &Node{
		Root:   t.TempDir(),
		Config: config.Default(),
		Facts: node.Facts{
			CgroupV2: true, Kernel: "6.1.0-18-amd64", Seccomp: true, MountAttributes: true,
			CgroupControllers: map[string]bool{"cpu": true, "memory": true, "pids": true, "cpuset": true, "io": true, "hugetlb": true},
		},
		Now:     time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC),
		Run:     func(context.Context, ...string) (string, error) { return "crun version 1.14\nspec: 1.0.0\n", nil },
		Overlay: func(string) error { return nil },
		Space: func(string) (Space, error) {
			return Space{Size: 100 << 30, Free: 50 << 30, Inodes: 100, FreeInodes: 50}, nil
		},
		Systemd:      func(context.Context) error { return nil },
		Network:      func(string, []string) network.Found { return network.Found{Name: "net", File: "10-net.conflist"} },
		Programs:     func(string) error { return nil },
		Confinement:  func() error { return nil },
		Synchronized: func() bool { return true },
	}
	n.Config.DefaultRuntime = "crun"
	n.Config.Runtimes = map[string]config.Runtime{"crun": {Path: "/usr/bin/crun"}}
	for name, text := range map[string]string{
		"/proc/sys/user/max_user_namespaces":           "1000\n",
		"/proc/self/ns/user":                           "",
		"/proc/sys/net/ipv4/ip_forward":                "1\n",
		"/proc/sys/net/bridge/bridge-nf-call-iptables": "1\n",
		"/proc/swaps":                                  "Filename\tType\n",
		"/etc/ssl/certs/ca-certificates.crt":           "-----BEGIN CERTIFICATE-----\n",
	} {
		n.write(t, name, text)
	}
	return n
}

func (n *Node) write(t *testing.T, name, text string) {
	t.Helper()
	file := n.at(name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func (n *Node) remove(t *testing.T, name string) {
	t.Helper()
	if err := os.RemoveAll(n.at(name)); err != nil {
		t.Fatal(err)
	}
}

func TestAllIsWell(t *testing.T) {
	results := good(t).Check(context.Background())
	seen := map[string]bool{}
	for _, r := range results {
		if r.Level != OK || r.Message == "" || r.Fix != "" {
			t.Errorf("%+v", r)
		}
		if seen[r.Name] {
			t.Errorf("%s comes twice", r.Name)
		}
		seen[r.Name] = true
	}
	if len(results) < 20 || results[0].Name != "configuration" || !seen["runtime-crun"] {
		t.Errorf("%d results: %v", len(results), results)
	}
}

// finding is a node with one thing changed, and what is to be found then.
type finding struct {
	name   string
	change func(t *testing.T, n *Node)
	item   string
	level  Level
	says   string // part of the message
}

var findings = []finding{
	{"bad configuration", func(_ *testing.T, n *Node) {
		n.ConfigErr = errors.New("configuration: /etc/gantry/gantry.toml:3: rot: unknown key")
	}, "configuration", Error, "/etc/gantry/gantry.toml:3: rot: unknown key"},
	{"not root", func(_ *testing.T, n *Node) { n.UID = 1000 }, "root", Error, "user 1000"},
	{"not root: overlay", func(_ *testing.T, n *Node) { n.UID = 1000 }, "overlay", Warning, "not tried"},
	{"old kernel", func(_ *testing.T, n *Node) { n.Facts.Kernel = "5.9.16" }, "kernel", Error, "at least 5.10"},
	{"oldest kernel", func(_ *testing.T, n *Node) { n.Facts.Kernel = "5.10.0" }, "kernel", OK, "5.10.0"},
	{"strange kernel", func(_ *testing.T, n *Node) { n.Facts.Kernel = "x" }, "kernel", Warning, "can't be read"},
	{"no facts", func(_ *testing.T, n *Node) { n.FactsErr = errors.New("no cgroups") }, "cgroup-version", Error, "no cgroups"},
	{"no overlay", func(_ *testing.T, n *Node) { n.Overlay = func(string) error { return errors.New("no such device") } }, "overlay", Error, "no such device"},
	{"cgroup v1", func(_ *testing.T, n *Node) { n.Facts.CgroupV2 = false }, "cgroup-version", Warning, "version 1"},
	{"no cgroups", func(_ *testing.T, n *Node) { n.Facts.CgroupV2, n.Facts.CgroupControllers = false, nil }, "cgroup-version", Error, "no control groups"},
	{"no memory controller", func(_ *testing.T, n *Node) { delete(n.Facts.CgroupControllers, "memory") }, "cgroup-controllers", Error, "missing: memory"},
	{"no io controller", func(_ *testing.T, n *Node) { delete(n.Facts.CgroupControllers, "io") }, "cgroup-controllers", Warning, "missing: io"},
	{"v1's names", func(_ *testing.T, n *Node) { n.Facts.CgroupV2 = false }, "cgroup-controllers", Warning, "missing: blkio"},
	{"systemd where there is none", func(_ *testing.T, n *Node) { n.Config.CgroupManager = "systemd" }, "cgroup-manager", Error, "not this node's service manager"},
	{"systemd without D-Bus", func(t *testing.T, n *Node) {
		n.Config.CgroupManager = "systemd"
		n.write(t, "/run/systemd/system/x", "")
		n.Systemd = func(context.Context) error { return errors.New("nobody listens") }
	}, "cgroup-manager", Error, "nobody listens"},
	{"systemd", func(t *testing.T, n *Node) {
		n.Config.CgroupManager = "systemd"
		n.write(t, "/run/systemd/system/x", "")
	}, "cgroup-manager", OK, "systemd"},
	{"bad parent", func(t *testing.T, n *Node) {
		n.Config.CgroupManager, n.Config.CgroupParent = "systemd", "/a--b"
		n.write(t, "/run/systemd/system/x", "")
	}, "cgroup-manager", Error, "cgroup_parent"},
	{"runtime not found", func(_ *testing.T, n *Node) { n.Config.Runtimes = map[string]config.Runtime{"runc": {}} }, "runtime-runc", Error, "not in PATH"},
	{"runtime broken", func(_ *testing.T, n *Node) {
		n.Run = func(context.Context, ...string) (string, error) { return "", errors.New("exec format error") }
	}, "runtime-crun", Error, "/usr/bin/crun --version: exec format error"},
	{"crun too old", version("crun version 1.7.2\n"), "runtime-crun", Error, "at least 1.8"},
	{"runc too old", version("runc version 1.0.3\n"), "runtime-crun", Error, "at least 1.1"},
	{"runc of Debian", version("runc version 1.1.5+ds1\ncommit: x\n"), "runtime-crun", OK, "runc 1.1.5+ds1, the default"},
	{"another runtime", version("runsc version release-20260905.0\n"), "runtime-crun", OK, "runsc"},
	{"a runtime that says nothing", version("hello\n"), "runtime-crun", Warning, "hello"},
	{"programs damaged", func(t *testing.T, n *Node) {
		n.write(t, "/var/lib/gantry/bin/x", "")
		n.Programs = func(string) error { return errors.New("gantry-monitor is missing") }
	}, "programs", Warning, "gantry-monitor is missing"},
	{"noexec", func(_ *testing.T, n *Node) {
		n.Space = func(string) (Space, error) { return Space{Size: 100, Free: 90, NotExecutes: true}, nil }
	}, "programs", Error, "noexec"},
	{"no CNI network", found(network.Found{Err: errors.New("none")}), "cni", Warning, "no network in /etc/cni/net.d"},
	{"bad CNI network", found(network.Found{Err: errors.New("10.conf: bad"), Problems: []string{"10.conf: bad"}}), "cni", Error, "10.conf: bad"},
	{"CNI plugin missing", found(network.Found{Name: "net", Err: errors.New(`CNI plugin "bridge" is not in /x`)}), "cni", Error, `plugin "bridge"`},
	{"another CNI file is bad", found(network.Found{Name: "net", Problems: []string{"20.conf: bad"}}), "cni", Warning, "20.conf: bad"},
	{"no forwarding", func(t *testing.T, n *Node) { n.write(t, "/proc/sys/net/ipv4/ip_forward", "0\n") }, "ip-forward", Warning, "ip_forward"},
	{"no br_netfilter", func(t *testing.T, n *Node) { n.remove(t, "/proc/sys/net/bridge") }, "br-netfilter", Warning, "not loaded"},
	{"br_netfilter off", func(t *testing.T, n *Node) { n.write(t, "/proc/sys/net/bridge/bridge-nf-call-iptables", "0\n") }, "br-netfilter", Warning, "is 0"},
	{"no user namespaces", func(t *testing.T, n *Node) { n.remove(t, "/proc/self/ns/user") }, "user-namespaces", Warning, "has none"},
	{"user namespaces off", func(t *testing.T, n *Node) { n.write(t, "/proc/sys/user/max_user_namespaces", "0\n") }, "user-namespaces", Warning, "switched off"},
	{"no mapped mounts", func(_ *testing.T, n *Node) { n.Facts.MountAttributes = false }, "user-namespaces", Warning, "map the ids"},
	{"no seccomp", func(_ *testing.T, n *Node) { n.Facts.Seccomp = false }, "seccomp", Warning, "not confined"},
	{"SELinux", func(_ *testing.T, n *Node) { n.Facts.SELinux = true }, "confinement", OK, "SELinux"},
	{"SELinux without a policy", func(_ *testing.T, n *Node) {
		n.Facts.SELinux, n.Confinement = true, func() error { return errors.New("no labels") }
	}, "confinement", Warning, "no labels"},
	{"AppArmor without its tools", func(_ *testing.T, n *Node) { n.Facts.AppArmor = true }, "confinement", Warning, "apparmor_parser"},
	{"AppArmor", func(t *testing.T, n *Node) {
		n.Facts.AppArmor = true
		n.write(t, "/usr/sbin/apparmor_parser", "")
	}, "confinement", OK, "AppArmor"},
	{"AppArmor, loaded", func(t *testing.T, n *Node) {
		n.Facts.AppArmor = true
		n.write(t, "/sys/kernel/security/apparmor/profiles", "other (enforce)\ngantry-default (enforce)\n")
	}, "confinement", OK, "AppArmor"},
	{"no certificates", func(t *testing.T, n *Node) { n.remove(t, "/etc/ssl") }, "ca-certificates", Warning, "there are none"},
	{"Fedora's certificates", func(t *testing.T, n *Node) {
		n.remove(t, "/etc/ssl")
		n.write(t, "/etc/pki/tls/certs/ca-bundle.crt", "x\n-----BEGIN CERTIFICATE-----\n")
	}, "ca-certificates", OK, "ca-bundle.crt"},
	{"disk full", room(Space{Size: 100 << 30, Free: 1 << 20}), "disk-root", Error, "is full"},
	{"disk nearly full", room(Space{Size: 100 << 30, Free: 4 << 30}), "disk-root", Warning, "nearly full"},
	{"little left", room(Space{Size: 10 << 30, Free: 1 << 30}), "disk-root", Warning, "nearly full"},
	{"a small empty disk", room(Space{Size: 64 << 20, Free: 60 << 20}), "disk-run-root", OK, "free"},
	{"no inodes", room(Space{Size: 100 << 30, Free: 50 << 30, Inodes: 100}), "disk-root", Error, "is full"},
	{"few inodes", room(Space{Size: 100 << 30, Free: 50 << 30, Inodes: 100, FreeInodes: 4}), "disk-root", Warning, "nearly full"},
	{"read-only", room(Space{Size: 100 << 30, Free: 50 << 30, ReadOnly: true}), "disk-run-root", Error, "read-only"},
	{"writable by all", func(t *testing.T, n *Node) {
		n.write(t, "/var/lib/gantry/x", "")
		if err := os.Chmod(n.at("/var/lib/gantry"), 0o777); err != nil {
			t.Fatal(err)
		}
	}, "permissions", Error, "mode 777"},
	{"no directory", func(t *testing.T, n *Node) { n.write(t, "/run/gantry", "") }, "permissions", Error, "is no directory"},
	{"the kubelet's driver", func(t *testing.T, n *Node) {
		n.write(t, kubeletConfig, "kind: KubeletConfiguration\ncgroupDriver: \"systemd\" # as kubeadm says\n")
	}, "kubelet", Warning, "cgroupDriver is systemd"},
	{"the kubelet's endpoint", func(t *testing.T, n *Node) {
		n.write(t, kubeletConfig, "cgroupDriver: cgroupfs\ncontainerRuntimeEndpoint: unix:///run/containerd/containerd.sock\n")
	}, "kubelet", Warning, "containerd.sock"},
	{"a kubelet that agrees", func(t *testing.T, n *Node) {
		n.write(t, kubeletConfig, "cgroupDriver: cgroupfs\ncontainerRuntimeEndpoint: unix:///run/gantry/gantry.sock\n")
	}, "kubelet", OK, "agrees"},
	{"containerd", func(t *testing.T, n *Node) { n.write(t, "/run/containerd/containerd.sock", "") }, "other-runtimes", OK, "--cri-socket"},
	{"swap", func(t *testing.T, n *Node) { n.write(t, "/proc/swaps", "Filename\n/dev/sda2 partition\n") }, "swap", OK, "on"},
	{"a clock of 1970", func(_ *testing.T, n *Node) { n.Now = time.Unix(1000, 0) }, "clock", Error, "1970"},
	{"a clock of its own", func(_ *testing.T, n *Node) { n.Synchronized = func() bool { return false } }, "clock", Warning, "does not know"},
}

func version(out string) func(*testing.T, *Node) {
	return func(_ *testing.T, n *Node) {
		n.Run = func(context.Context, ...string) (string, error) { return out, nil }
	}
}

func found(f network.Found) func(*testing.T, *Node) {
	return func(_ *testing.T, n *Node) { n.Network = func(string, []string) network.Found { return f } }
}

func room(s Space) func(*testing.T, *Node) {
	return func(_ *testing.T, n *Node) { n.Space = func(string) (Space, error) { return s, nil } }
}

func TestFindings(t *testing.T) {
	for _, f := range findings {
		t.Run(f.name, func(t *testing.T) {
			n := good(t)
			f.change(t, n)
			for _, r := range n.Check(context.Background()) {
				if r.Name != f.item {
					continue
				}
				if r.Level != f.level || !strings.Contains(r.Message, f.says) {
					t.Errorf("got %+v, want %s with %q", r, f.level, f.says)
				}
				return
			}
			t.Errorf("no result for %s", f.item)
		})
	}
}

// TestHanging: one item that hangs holds up nothing, and is told.
func TestHanging(t *testing.T) {
	n := good(t)
	stuck := make(chan struct{})
	defer close(stuck)
	n.Overlay = func(string) error {
		<-stuck
		return nil
	}
	begin := time.Now()
	results := n.Check(context.Background())
	if took := time.Since(begin); took > 2*Patience {
		t.Errorf("it took %s", took)
	}
	for _, r := range results {
		if (r.Level == Error) != (r.Name == "overlay") {
			t.Errorf("%+v", r)
		}
	}
}

// TestRunKills: a command that hangs is killed, with all that it started.
func TestRunKills(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	begin := time.Now()
	_, err := run(ctx, "/bin/sh", "-c", "sleep 1000 & sleep 1000")
	if err == nil || !strings.Contains(err.Error(), "no answer") || time.Since(begin) > Patience {
		t.Errorf("%v after %s", err, time.Since(begin))
	}
	out, err := run(context.Background(), "/bin/sh", "-c", "echo a; exit 3")
	if err == nil || !strings.Contains(err.Error(), "exit status 3: a") {
		t.Errorf("%q, %v", out, err)
	}
	if out, err := run(context.Background(), "/bin/sh", "-c", "echo a"); err != nil || out != "a\n" {
		t.Errorf("%q, %v", out, err)
	}
}

// TestReal: the node that the tests run on.
func TestReal(t *testing.T) {
	cfg := config.Default()
	cfg.Root, cfg.RunRoot = filepath.Join(t.TempDir(), "root"), filepath.Join(t.TempDir(), "run")
	results := Real(cfg, nil).Check(context.Background())
	for _, r := range results {
		if r.Level != OK && r.Fix == "" {
			t.Errorf("nothing is said on what to do: %+v", r)
		}
		if r.Name == "overlay" && os.Geteuid() == 0 && r.Level != OK {
			t.Errorf("%+v", r)
		}
	}
	left, err := filepath.Glob(filepath.Dir(cfg.Root) + "/.*probe*")
	if err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}
