package check

import (
	"context"
	"fmt"
	"strings"
)

// The oldest kernel that works.
const kernelMajor, kernelMinor = 5, 10

func configuration(_ context.Context, n *Node) Result {
	if n.ConfigErr != nil {
		return bad("mend it; gantryd config --default prints all keys. Until then the defaults are looked at below",
			"%s", strings.TrimPrefix(n.ConfigErr.Error(), "configuration: "))
	}
	return ok("valid")
}

func root(_ context.Context, n *Node) Result {
	if n.UID != 0 {
		return bad("run gantryd, and this, as root", "this runs as user %d; not everything can be looked at", n.UID)
	}
	return ok("yes")
}

func kernel(_ context.Context, n *Node) Result {
	if n.FactsErr != nil {
		return bad("see the error", "can't be looked at: %v", n.FactsErr)
	}
	var major, minor int
	if _, err := fmt.Sscanf(n.Facts.Kernel, "%d.%d", &major, &minor); err != nil {
		return warning("", "its version can't be read: %q", n.Facts.Kernel)
	}
	if major < kernelMajor || major == kernelMajor && minor < kernelMinor {
		return bad("upgrade the kernel", "Linux %s; at least %d.%d is needed", n.Facts.Kernel, kernelMajor, kernelMinor)
	}
	return ok("Linux %s", n.Facts.Kernel)
}

func overlay(_ context.Context, n *Node) Result {
	if n.UID != 0 {
		return warning("run this as root", "not tried: that needs root")
	}
	dir := n.nearest(n.Config.Root)
	if err := n.Overlay(n.at(dir)); err != nil {
		return bad("load the module (modprobe overlay), and have root on a file system that can be an overlay's upper layer, such as ext4 or xfs with ftype=1",
			"an overlay can't be mounted in %s: %v", dir, err)
	}
	return ok("can be mounted in %s", dir)
}

func userNamespaces(_ context.Context, n *Node) Result {
	const fix = "only pods with hostUsers: false need them"
	limit := strings.TrimSpace(n.read("/proc/sys/user/max_user_namespaces"))
	switch {
	case !n.exists("/proc/self/ns/user") || limit == "":
		return warning(fix, "the kernel has none")
	case limit == "0":
		return warning("sysctl -w user.max_user_namespaces=15000; "+fix, "switched off: user.max_user_namespaces is 0")
	case n.FactsErr == nil && !n.Facts.MountAttributes:
		return warning("Linux 5.12 or newer; "+fix, "the kernel can't map the ids of mounts")
	}
	return ok("available")
}

func seccomp(_ context.Context, n *Node) Result {
	if n.FactsErr == nil && !n.Facts.Seccomp {
		return warning("a kernel with CONFIG_SECCOMP_FILTER", "the kernel has no seccomp filters: containers are not confined by them")
	}
	return ok("available")
}

// confinement looks at the Linux security module.
func confinement(_ context.Context, n *Node) Result {
	switch {
	case n.FactsErr != nil:
		return warning("see kernel", "can't be looked at")
	case n.Facts.SELinux:
		if err := n.Confinement(); err != nil {
			return warning("install the policy for containers (container-selinux)", "SELinux is enabled, but containers are not confined: %v", err)
		}
		return ok("SELinux")
	case n.Facts.AppArmor:
		profile := n.Config.AppArmorProfile
		loaded := strings.Contains("\n"+n.read("/sys/kernel/security/apparmor/profiles"), "\n"+profile+" (")
		if !loaded && !n.inPath("apparmor_parser") {
			return warning("apt install apparmor", "AppArmor is enabled, but the profile %s is not loaded, and apparmor_parser, which loads it, is missing", profile)
		}
		return ok("AppArmor")
	}
	return ok("the kernel has neither AppArmor nor SELinux enabled")
}

// inPath looks for a program where systemd has services look.
func (n *Node) inPath(program string) bool {
	for _, dir := range []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"} {
		if n.exists(dir + "/" + program) {
			return true
		}
	}
	return false
}
