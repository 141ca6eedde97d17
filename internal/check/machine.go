package check

import (
	"context"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/docker/go-units"
)

// needs are how much room a file system should have.
type needs struct {
	key   string // of the configuration
	least uint64 // bytes: less is an error
	some  uint64 // bytes: less is a warning
}

var (
	rootNeeds = needs{"root", 100 << 20, 2 << 30}
	runNeeds  = needs{"run_root", 4 << 20, 64 << 20}
)

// scarce is the part, in percent, of bytes or inodes below which they are scarce.
const scarce = 5

func disk(n *Node, dir string, want needs) Result {
	at := n.nearest(dir)
	s, err := n.Space(n.at(at))
	if err != nil {
		return bad("see the error", "%s: %v", at, err)
	}
	room := fmt.Sprintf("%s of %s free", units.BytesSize(float64(s.Free)), units.BytesSize(float64(s.Size)))
	if s.Inodes > 0 {
		room += fmt.Sprintf(", and %d of %d inodes", s.FreeInodes, s.Inodes)
	}
	fix := "make room (gantryd images prune), or set another " + want.key
	switch {
	case s.ReadOnly:
		return bad("mount it for writing, or set another "+want.key, "%s is mounted read-only", at)
	case s.Free < want.least || s.Inodes > 0 && s.FreeInodes == 0:
		return bad(fix, "%s is full: %s", at, room)
	case s.Free < want.some && s.Free*100 < s.Size*20 || s.Free*100 < s.Size*scarce || s.Inodes > 0 && s.FreeInodes*100 < s.Inodes*scarce:
		return warning(fix, "%s is nearly full: %s", at, room)
	}
	return ok("%s: %s", at, room)
}

// permissions looks at the directories of state: who can write there can become root.
func permissions(_ context.Context, n *Node) Result {
	var fine []string
	for _, dir := range []string{n.Config.Root, n.Config.RunRoot} {
		info, err := os.Stat(n.at(dir))
		if os.IsNotExist(err) {
			fine = append(fine, dir+" is made at the first start")
			continue
		}
		if err != nil {
			return bad("see the error", "%v", err)
		}
		if !info.IsDir() {
			return bad("remove it, or set another directory", "%s is no directory", dir)
		}
		if mode := info.Mode().Perm(); mode&0o022 != 0 {
			return bad("chmod 711 "+dir, "others than root can write to %s (mode %o)", dir, mode)
		}
		if st, known := info.Sys().(*syscall.Stat_t); known && st.Uid != 0 {
			return bad("chown root:root "+dir, "%s belongs to user %d", dir, st.Uid)
		}
		fine = append(fine, dir+" is root's")
	}
	return ok("%s", strings.Join(fine, ", "))
}

const kubeletConfig = "/var/lib/kubelet/config.yaml"

// kubelet compares the kubelet's configuration, where it is, with ours.
func kubelet(_ context.Context, n *Node) Result {
	text := n.read(kubeletConfig)
	if text == "" {
		return ok("no %s", kubeletConfig)
	}
	driver, endpoint := yamlValue(text, "cgroupDriver"), yamlValue(text, "containerRuntimeEndpoint")
	if driver != "" && driver != n.Config.CgroupManager {
		return warning(fmt.Sprintf("set cgroup_manager = %q, or the kubelet's cgroupDriver, and restart both", driver),
			"its cgroupDriver is %s, and cgroup_manager is %s: unless it asks Gantry (Kubernetes 1.28 and newer), no pod can be run", driver, n.Config.CgroupManager)
	}
	if ours := "unix://" + n.Config.Listen; endpoint != "" && strings.TrimPrefix(endpoint, "unix://") != n.Config.Listen {
		return warning("containerRuntimeEndpoint: "+ours+" in "+kubeletConfig, "its containerRuntimeEndpoint is %s, and Gantry listens at %s", endpoint, ours)
	}
	return ok("%s agrees with the configuration", kubeletConfig)
}

// yamlValue is the plain value of a key at the top of a YAML file; "" if it has none.
func yamlValue(text, key string) string {
	for line := range strings.Lines(text) {
		if value, found := strings.CutPrefix(line, key+":"); found {
			value, _, _ = strings.Cut(value, " #")
			return strings.Trim(strings.TrimSpace(value), `"'`)
		}
	}
	return ""
}

func otherRuntimes(_ context.Context, n *Node) Result {
	var found []string
	for _, socket := range []string{"/run/containerd/containerd.sock", "/run/crio/crio.sock", "/run/cri-dockerd.sock"} {
		if n.exists(socket) {
			found = append(found, socket)
		}
	}
	if len(found) > 0 {
		return ok("there are %s: kubeadm needs --cri-socket unix://%s", strings.Join(found, ", "), n.Config.Listen)
	}
	return ok("none")
}

func swap(_ context.Context, n *Node) Result {
	if lines := strings.Split(strings.TrimSpace(n.read("/proc/swaps")), "\n"); len(lines) > 1 {
		return ok("on: the kubelet needs failSwapOn: false, or swapoff -a")
	}
	return ok("off")
}

// before is a time that has passed when this was written.
var before = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func clock(_ context.Context, n *Node) Result {
	const fix = "have a time service set it: chrony or systemd-timesyncd"
	switch {
	case n.Now.Before(before) || n.Now.After(before.AddDate(30, 0, 0)):
		return bad(fix, "it is %s here, which can't be: certificates are refused", n.Now.UTC().Format(time.DateTime))
	case !n.Synchronized():
		return warning(fix, "it is %s UTC here; the kernel does not know of anybody who keeps that right", n.Now.UTC().Format(time.DateTime))
	}
	return ok("%s UTC, synchronized", n.Now.UTC().Format(time.DateTime))
}
