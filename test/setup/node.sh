#!/bin/sh
# Prepares the kernel side of this machine for containers, only where it is
# needed, and says what it does. Nothing of it outlasts a reboot.
set -eu

say() { echo "setup: $*"; }
die() { echo "setup: $*" >&2; exit 1; }

# hybrid_controllers: on a machine with cgroup v1 controllers and a cgroup2
# beside them, some versions of crun refuse to work while that cgroup2 offers a
# controller. A v1 mount takes the controller away from it.
hybrid_controllers() {
	unified=/sys/fs/cgroup/unified/cgroup.controllers
	[ -r $unified ] || return 0
	for controller in $(cat $unified); do
		dir=/sys/fs/cgroup/$controller
		if mountpoint -q "$dir"; then
			continue
		fi
		mkdir -p "$dir"
		if mount -t cgroup -o "$controller" cgroup "$dir" 2>/dev/null; then
			say "mounted the cgroup v1 controller $controller on $dir: crun does not work while a second, nearly empty cgroup2 offers it"
		else
			rmdir "$dir" 2>/dev/null || true
			say "could not mount the cgroup v1 controller $controller; crun may refuse to work"
		fi
	done
}

bridge_traffic() {
	if [ -e /proc/sys/net/ipv4/ip_forward ] && [ "$(cat /proc/sys/net/ipv4/ip_forward)" = 0 ]; then
		say "IPv4 forwarding is off; the bridge CNI plugin turns it on when it makes the first pod's network"
	fi
}

[ "$(id -u)" = 0 ] || die "root is needed"
[ -d /sys/fs/cgroup ] || die "no cgroup file system on /sys/fs/cgroup"
grep -q '[[:space:]]overlay$' /proc/filesystems || modprobe overlay 2>/dev/null || die "this kernel has no overlayfs"
hybrid_controllers
bridge_traffic
say "the node is ready"
