package testenv

import (
	"crypto/sha512"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
)

// processes lists every process that names the environment in its arguments,
// its program, its working directory, its cgroup or its environment, but not
// the daemon itself; and the daemon's zombies.
func (e *Env) processes() []string {
	var list []string
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return []string{err.Error()}
	}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || pid == os.Getpid() || e.daemon != nil && e.daemon.running() && pid == e.DaemonPID() {
			continue
		}
		if what, ours := e.process(pid); ours {
			list = append(list, what)
		}
	}
	return list
}

func (e *Env) process(pid int) (what string, ours bool) {
	dir := fmt.Sprintf("/proc/%d/", pid)
	argv := strings.TrimSpace(strings.ReplaceAll(readText(dir+"cmdline"), "\x00", " "))
	if argv == "" {
		argv = strings.TrimSpace(readText(dir + "comm"))
	}
	what = fmt.Sprintf("%d (%s)", pid, argv)
	signs := []string{argv, readText(dir + "cgroup"), readText(dir + "environ")}
	for _, link := range []string{"exe", "cwd"} {
		target, err := os.Readlink(dir + link)
		if err == nil {
			signs = append(signs, target)
		}
	}
	for _, sign := range signs {
		if strings.Contains(sign, e.Dir) || strings.Contains(sign, e.CgroupParent) {
			return what, true
		}
	}
	if e.daemon == nil {
		return what, false
	}
	stat := readText(dir + "stat")
	_, after, _ := strings.Cut(stat, ") ")
	fields := strings.Fields(after)
	zombie := len(fields) > 1 && fields[0] == "Z" && fields[1] == strconv.Itoa(e.DaemonPID())
	return what + " zombie", zombie
}

// mounts lists the mount points below the environment's directory.
func (e *Env) mounts() []string {
	var list []string
	for line := range strings.Lines(readText("/proc/self/mountinfo")) {
		if fields := strings.Fields(line); len(fields) > 4 && strings.HasPrefix(fields[4], e.Dir+"/") {
			list = append(list, fields[4])
		}
	}
	return list
}

// podMounts is mounts without the test's own disks and the one that
// containers/storage leaves on its own directory by design.
func (e *Env) podMounts() []string {
	var list []string
	for _, mount := range e.mounts() {
		if !strings.HasPrefix(mount, filepath.Join(e.Root, "storage")) && !slices.Contains(e.disks, mount) {
			list = append(list, mount)
		}
	}
	return list
}

// links lists the interfaces on the environment's bridge.
func (e *Env) links() []string {
	bridge, err := netlink.LinkByName(e.Bridge)
	if err != nil {
		return nil
	}
	all, err := netlink.LinkList()
	if err != nil {
		return []string{err.Error()}
	}
	var list []string
	for _, link := range all {
		if link.Attrs().MasterIndex == bridge.Attrs().Index {
			list = append(list, link.Attrs().Name)
		}
	}
	return list
}

// leases lists the addresses that host-local holds, and the results that libcni
// keeps in its default place.
func (e *Env) leases() []string {
	var list []string
	for _, file := range filesBelow(e.path("ipam")) {
		if net.ParseIP(filepath.Base(file)) != nil {
			list = append(list, file)
		}
	}
	cached, _ := filepath.Glob("/var/lib/cni/results/" + e.Name + "-*")
	return append(list, cached...)
}

// firewall lists the rules that name the environment's network and the chains
// that the portmap and bridge plugins make for its pods.
func (e *Env) firewall() []string {
	chains := e.chains()
	var list []string
	for _, save := range []string{"iptables-save", "ip6tables-save"} {
		out, err := exec.Command(save).Output()
		if err != nil {
			return []string{save + ": " + err.Error()}
		}
		for line := range strings.Lines(string(out)) {
			line = strings.TrimSpace(line)
			if strings.Contains(line, e.Name) || strings.HasPrefix(line, ":CNI-") && chains[strings.Fields(line)[0][1:]] {
				list = append(list, save+" "+line)
			}
		}
	}
	return list
}

// chains names the chains as the CNI plugins do: a prefix and as much of a
// digest of network and container as a chain's name can hold.
func (e *Env) chains() map[string]bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	names := map[string]bool{}
	for _, pod := range e.pods {
		digest := fmt.Sprintf("%x", sha512.Sum512([]byte(e.Name+pod)))
		for _, prefix := range []string{"CNI-", "CNI-DN-", "CNI-SN-"} {
			names[(prefix + digest)[:28]] = true
		}
	}
	return names
}

// files lists everything below the run root and the root, except the image
// store and the programs that the daemon installs.
func (e *Env) files() []string {
	var list []string
	for _, file := range append(filesBelow(e.RunRoot), filesBelow(e.Root)...) {
		if !e.lasting(file) {
			list = append(list, file)
		}
	}
	return list
}

func (e *Env) lasting(file string) bool {
	for _, dir := range []string{e.Root + "/storage", e.Root + "/bin", e.Root + "/tmp/config", e.RunRoot + "/storage"} {
		if file == dir || strings.HasPrefix(file, dir+"/") {
			return true
		}
	}
	// Directories that come with their first use; what is in them is told.
	for _, dir := range []string{"/containers/.trash", "/network/cache", "/network/cache/results"} {
		if file == e.Root+dir {
			return true
		}
	}
	rel := strings.TrimPrefix(strings.TrimPrefix(file, e.RunRoot+"/"), e.Root+"/")
	return !strings.Contains(rel, "/")
}

func filesBelow(dir string) []string {
	var list []string
	_ = filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err == nil && path != dir {
			list = append(list, path)
		}
		return nil
	})
	return list
}

func readText(file string) string {
	data, err := os.ReadFile(file)
	if err != nil {
		return "" // the process or the file is gone: nothing to find in it
	}
	return string(data)
}
