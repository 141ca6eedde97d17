#!/bin/bash
# Runs in the virtual machine: installs Gantry's own package with dpkg, has the
# real systemd start it, and looks at what a node's pods notice of restarts,
# upgrades, downgrades, a removal and a purge. test/vm/package-test.sh brings it
# there, with the packages.
set -euo pipefail
cd /gantry
. ./lib.sh

property() { systemctl show gantry.service -P "$1"; }
dpkg() {
	DEBIAN_FRONTEND=noninteractive command dpkg --force-unsafe-io "$@" >/tmp/dpkg.log 2>&1 </dev/null || { cat /tmp/dpkg.log; fail "dpkg $*"; }
}

# --- the node: a registry, a network and crictl, by the package's own examples

node() {
	configure_node
	serve_images demo
	cat >/tmp/pod.json <<-'EOF'
	{"metadata": {"name": "web", "namespace": "default", "uid": "u1", "attempt": 0}, "log_directory": "/tmp/logs",
	 "port_mappings": [{"container_port": 80, "host_port": 8080}], "linux": {}}
	EOF
	cat >/tmp/container.json <<-'EOF'
	{"metadata": {"name": "clock"}, "image": {"image": "busybox:latest"}, "log_path": "clock.log", "linux": {},
	 "command": ["sh", "-c", "n=0; while :; do echo tick $((n += 1)); sleep 1; done"]}
	EOF
	mkdir -p /tmp/logs
}

active() { [ "$(systemctl is-active gantry)" = active ]; }

# --- the unit

unit_is_right() {
	same "is-enabled" "$(systemctl is-enabled gantry)" enabled
	same Type "$(property Type)" notify
	same Delegate "$(property Delegate)" yes
	same KillMode "$(property KillMode)" process
	same watchdog "$(property WatchdogUSec)" 1min
	same "watchdog told" "$([ "$(property WatchdogTimestampMonotonic)" != 0 ] && echo yes)" yes
	same oom_score_adj "$(cat "/proc/$(property MainPID)/oom_score_adj")" -999
	same ExecMainPID "$(readlink "/proc/$(property MainPID)/exe")" /usr/bin/gantryd
	same "mount namespace" "$(readlink "/proc/$(property MainPID)/ns/mnt")" "$(readlink /proc/1/ns/mnt)"
	same seccomp "$(awk '$1 == "Seccomp:" { print $2 }' "/proc/$(property MainPID)/status")" 0
	same "no new privileges" "$(awk '$1 == "NoNewPrivs:" { print $2 }' "/proc/$(property MainPID)/status")" 0
}

# --- a pod, and whether it is what it was

run_pod() {
	pod=$(crictl --timeout 300s runp /tmp/pod.json)
	quietly crictl --timeout 600s pull busybox:latest || fail "pull: $(cat /tmp/out)"
	container=$(crictl --timeout 300s create "$pod" /tmp/container.json /tmp/pod.json)
	quietly crictl --timeout 300s start "$container" || fail "start: $(cat /tmp/out)"
	before=$(processes)
	same "processes of a pod" "$(wc -w <<<"$before")" 3
	address=$(crictl inspectp -o go-template --template '{{.status.network.ip}}' "$pod")
}

# processes are the monitor, the pause process and the container's init.
processes() {
	local init pause
	init=$(crictl inspect -o go-template --template '{{.info.pid}}' "$container")
	pause=$(crictl inspectp -o go-template --template '{{.info.pid}}' "$pod")
	echo "$(awk '$1 == "PPid:" { print $2 }' "/proc/$init/status") $pause $init"
}

ticks() { grep -c tick /tmp/logs/clock.log; }

# whole fails unless the pod is as it was before, and of use.
whole() {
	eventually answers
	same "processes after $1" "$(processes)" "$before"
	same "address after $1" "$(crictl inspectp -o go-template --template '{{.status.network.ip}}' "$pod")" "$address"
	same "exec -s after $1" "$(timeout 120 crictl exec -s "$container" echo hello)" hello
	same "exec after $1" "$(timeout 120 crictl exec "$container" echo hello)" hello
	{ timeout -s KILL 8 crictl attach "$container" </dev/null >/tmp/attached || true; } 2>/dev/null # it outlives SIGTERM
	grep -q tick /tmp/attached || fail "attach after $1: nothing is heard"
	local n
	n=$(ticks)
	sleep 2
	[ "$(ticks)" -gt "$n" ] || fail "the log does not grow after $1"
	say "after $1 the pod is whole: processes $before, exec, attach, log"
}

# --- the package's life

restarts() {
	local pid
	pid=$(property MainPID)
	systemctl restart gantry || fail "restart"
	[ "$(property MainPID)" != "$pid" ] || fail "restart: it is the same process"
	whole "systemctl restart"

	pid=$(property MainPID)
	kill -9 "$pid"
	eventually another "$pid"
	whole "kill -9"

	if [ "$(property CanReload)" = yes ]; then
		pid=$(property MainPID)
		systemctl reload gantry || fail "reload"
		eventually active
		same "process after systemctl reload" "$(property MainPID)" "$pid"
		whole "systemctl reload"
	fi
}

another() { active && [ "$(property MainPID)" != "$1" ]; }

# hangs stops the daemon, as a dead lock would, and waits for the watchdog.
hangs() {
	mkdir -p /run/systemd/system/gantry.service.d
	printf '[Service]\nWatchdogSec=20\n' >/run/systemd/system/gantry.service.d/test.conf
	systemctl daemon-reload
	systemctl restart gantry
	local pid
	pid=$(property MainPID)
	kill -STOP "$pid"
	eventually another "$pid"
	journalctl --no-pager -u gantry | grep -q 'Watchdog timeout' || fail "the watchdog said nothing"
	whole "the watchdog"
	rm -r /run/systemd/system/gantry.service.d
	systemctl daemon-reload
}

upgrades() {
	local pid
	for deb in newer older; do
		pid=$(property MainPID)
		dpkg -i $deb.deb
		same "is-active after installing $deb" "$(systemctl is-active gantry)" active
		[ "$(property MainPID)" != "$pid" ] || fail "$deb.deb did not start gantryd anew"
		same version "$(dpkg-query -W -f '${Version}' gantry)" "$(dpkg-deb -f $deb.deb Version)"
		whole "dpkg -i $deb.deb"
	done
	systemctl stop gantry
	dpkg -i this.deb
	same "is-active after an upgrade of one that was stopped" "$(systemctl is-active gantry)" inactive
	systemctl start gantry
	whole "an upgrade while it was stopped"
}

removed_and_back() {
	dpkg -r gantry
	grep -q '1 pods go on' /tmp/dpkg.log || fail "dpkg -r: $(cat /tmp/dpkg.log)"
	[ "$(systemctl is-active gantry)" != active ] || fail "gantryd runs after dpkg -r"
	for pid in $before; do
		[ -e "/proc/$pid" ] || fail "process $pid ended with dpkg -r"
	done
	dpkg -i this.deb
	same "is-active after a removal and an installation" "$(systemctl is-active gantry)" active
	whole "dpkg -r and dpkg -i"
}

# leftovers lists what a purge should have removed.
leftovers() {
	ls -d /var/lib/gantry /run/gantry /etc/gantry /usr/bin/gantryd /etc/systemd/system/multi-user.target.wants/gantry.service 2>/dev/null
	grep gantry /proc/self/mountinfo | grep -v ' /gantry '
	ps -eo pid=,args= | grep -e '[g]antry-monitor' -e '[/]pause' -e '[t]ick'
	find /sys/fs/cgroup -mindepth 1 -type d -name 'gantry*' ! -name 'gantry-test.service'
	grep -s gantry-default /sys/kernel/security/apparmor/profiles
	ip -o link show type veth
	if [ "$wiped" ]; then
		find /var/lib/cni/networks -name '10.*' 2>/dev/null
		iptables-save | grep -e "$pod" -e "$address"
	fi
	systemctl list-units --all --no-legend --plain 'gantry*' | grep -v -e '^gantry-test' -e '^gantry.mount' # the test's own
	return 0
}

nothing_left() { [ -z "$(leftovers)" ]; }

purged() {
	wiped=
	! gantryd help | grep -q '^  wipe ' || wiped=yes
	dpkg -P gantry
	if [ "$wiped" ] && grep -q 'by force' /tmp/dpkg.log; then
		fail "gantryd wipe failed at the purge: $(cat /tmp/dpkg.log)"
	fi
	for _ in $(seq 20); do
		! nothing_left || break
		sleep 0.5
	done
	nothing_left || { cat /tmp/dpkg.log; fail "left after a purge: $(leftovers)"; }
	say "after a purge nothing is left${wiped:+ (by gantryd wipe)}"
}

# checked has gantryd look at the node itself.
checked() {
	gantryd check >/tmp/check || fail "gantryd check: $(cat /tmp/check)"
	grep -q "^ok  *cgroup-manager  *$1" /tmp/check || fail "gantryd check, of the cgroup manager $1: $(cat /tmp/check)"
	grep -q '^ok  *confinement  *AppArmor' /tmp/check || fail "gantryd check, of AppArmor: $(cat /tmp/check)"
}

# life has a node with this cgroup manager from an installation to a purge.
life() {
	say "cgroup manager $1"
	if [ "$1" = systemd ]; then
		mkdir -p /etc/gantry/conf.d
		echo 'cgroup_manager = "systemd"' >/etc/gantry/conf.d/10-cgroups.toml
	fi
	dpkg -i this.deb
	same "is-active after an installation" "$(systemctl is-active gantry)" active
	unit_is_right
	say "installed, and active by itself: $(gantryd --version)"
	[ -n "${registry:-}" ] || node
	eventually ready
	checked "$1"
	run_pod
	say "a pod runs: $(cat "/proc/${before##* }/attr/current"), $(tail -n 1 "/proc/${before##* }/cgroup")"
	grep -q '^gantry-default (enforce)' "/proc/${before##* }/attr/current" || fail "the container is not confined by AppArmor"
	whole "its start"
	restarts
	[ "$1" = systemd ] || hangs
	upgrades
	removed_and_back
	purged
}

# archive installs the tar.gz as a node without dpkg does.
archive() {
	tar -C / --strip-components=1 -xzf gantry.tar.gz
	systemctl daemon-reload
	systemctl enable --now gantry || fail "the unit of the tar.gz does not start"
	answers || fail "it does not answer"
	say "the tar.gz over /: $(crictl version | tr -s ' \n' ' ')"
}

life cgroupfs
life systemd
archive
