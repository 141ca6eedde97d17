#!/bin/sh
# Removes what test environments and demos left behind whose owner is dead: a
# test that was killed can't clean up after itself. Environments that are in use
# are left alone. Run by make clean and before make test.
set -eu

sweep_cgroups() {
	for top in /sys/fs/cgroup/gantry-test-"$1" /sys/fs/cgroup/*/gantry-test-"$1"; do
		[ -d "$top" ] || continue
		for _ in 1 2 3 4 5; do
			find "$top" -name cgroup.procs -exec cat {} + 2>/dev/null | xargs -r kill -9 2>/dev/null || true
			find "$top" -depth -type d -exec rmdir {} + 2>/dev/null || true
			[ -d "$top" ] || break
			sleep 0.1
		done
	done
}

# sweep_processes kills what names the directory in its arguments or program.
sweep_processes() {
	for proc in /proc/[0-9]*; do
		if { tr '\0' ' ' <"$proc/cmdline"; readlink "$proc/exe" "$proc/cwd"; } 2>/dev/null | grep -qF "$1"; then
			pid=${proc#/proc/}
			[ "$pid" = $$ ] || kill -9 "$pid" 2>/dev/null || true
		fi
	done
}

sweep() {
	dir=$1
	owner=$(cat "$dir/owner" 2>/dev/null || true)
	if [ -z "$owner" ] || [ -d "/proc/$owner" ]; then
		return 0
	fi
	name=$(cat "$dir/name" 2>/dev/null || true)
	sweep_processes "$dir"
	if [ -n "$name" ]; then
		sweep_cgroups "$name"
		ip link delete "$name" 2>/dev/null || true
		ip link delete "n$name" 2>/dev/null || true
		if [ -e "$dir/kubelet/kube-proxy.log" ]; then
			nft delete table ip kube-proxy 2>/dev/null || true
			nft delete table ip6 kube-proxy 2>/dev/null || true
		fi
	fi
	awk -v dir="$dir/" 'index($5, dir) == 1 { print $5 }' /proc/self/mountinfo | sort -r | while read -r mount; do
		umount -l "$mount" 2>/dev/null || true
	done
	rm -rf --one-file-system "$dir"
	echo "swept $dir"
}

for dir in "${TMPDIR:-/tmp}"/gantry-env-*; do
	[ -d "$dir" ] && sweep "$dir"
done
exit 0
