#!/bin/bash
# Runs in the virtual machine, once in each boot of a disk that lasts: what its
# arguments name, one after the other. test/vm/reboot-test.sh brings it there.
#
#   reboot.sh CGROUP-MANAGER first|pods|restart|rebooted|lose_power|cut_off|whole|empty...
set -euo pipefail
cd /gantry
. ./lib.sh

manager=$1
shift
kept=/var/lib/gantry-test # what one boot tells the next
root=/var/lib/gantry
names=$(jq -r '.manifests[].annotations["org.opencontainers.image.ref.name"]' images/*/index.json | grep -v pause | sort -u)

# --- the first boot

first() {
	mkdir -p $kept /etc/gantry/conf.d /etc/systemd/system.conf.d
	echo "cgroup_manager = \"$manager\"" >/etc/gantry/conf.d/10-cgroups.toml
	# Containers' processes, each the first of its namespace, don't heed SIGTERM.
	printf '[Manager]\nDefaultTimeoutStopSec=10s\n' >/etc/systemd/system.conf.d/test.conf
	DEBIAN_FRONTEND=noninteractive dpkg -i this.deb >/tmp/dpkg.log 2>&1 </dev/null || fail "dpkg -i"
	configure_node
	begin
	pull_all
	say "installed: $(gantryd --version), $(crictl images -q | sort -u | wc -l) images"
}

# begin waits for the daemon, which systemd starts, and gives it a registry.
begin() {
	serve_images demo critest
	eventually ready
	mkdir -p /tmp/logs
}

# pull_all also sees to it that what is pulled is right.
pull_all() {
	local name
	for name in $names; do
		quietly crictl --timeout 300s pull "$name" || fail "pull $name: $(cat /tmp/out)"
	done
	quietly gantryd images verify || fail "gantryd images verify: $(cat /tmp/out)"
}

# --- pods

# pod runs a pod of this name, and prints its id.
pod() {
	printf '{"metadata": {"name": "%s", "namespace": "default", "uid": "%s"}, "log_directory": "/tmp/logs/%s", "linux": {}}' \
		"$1" "$1" "$1" >"/tmp/pod-$1.json"
	mkdir -p "/tmp/logs/$1"
	crictl --timeout 300s runp "/tmp/pod-$1.json" 2>"/tmp/err-$1" || { cat "/tmp/err-$1" >&2; return 1; }
}

# container creates a container in a pod: ID-OF-POD POD NAME IMAGE [COMMAND...]. It
# is root, for the users of some images are not in their /etc/passwd.
container() {
	local id=$1 pod=$2 name=$3 image=$4
	shift 4
	jq -n --arg name "$name" --arg image "$image" \
		'{metadata: {name: $name}, image: {image: $image}, log_path: ($name + ".log"), command: $ARGS.positional,
		  linux: {security_context: {run_as_user: {value: 0}, run_as_group: {value: 0}}}}' \
		--args -- "$@" >"/tmp/container-$pod-$name.json"
	crictl --timeout 300s create "$id" "/tmp/container-$pod-$name.json" "/tmp/pod-$pod.json" 2>"/tmp/err-$pod" || { cat "/tmp/err-$pod" >&2; return 1; }
}

# pods leaves pods in every state behind.
pods() {
	local n id ctr
	for n in 1 2 3; do
		id=$(pod "old$n")
		ctr=$(container "$id" "old$n" clock busybox:latest sh -c 'echo written >/file; sleep 10000')
		quietly crictl --timeout 300s start "$ctr" || fail "start: $(cat /tmp/out)"
	done
	container "$id" old3 created busybox:latest sleep 10000 >/dev/null
	id=$(pod old4)
	quietly crictl --timeout 300s stopp "$id" || fail "stopp: $(cat /tmp/out)"
	[ "$(leases | wc -l)" -ge 3 ] || fail "leases of pods: $(leases)"
	say "pods run: $(crictl pods -q | wc -l), with $(leases | wc -l) leases"
}

leases() { find /var/lib/cni/networks -name '10.*' 2>/dev/null; }

# stale lists what pods leave that are gone.
stale() {
	crictl pods -q
	crictl ps -aq
	leases
	find $root/network -type f 2>/dev/null
	find $root/containers -mindepth 1 -maxdepth 1 ! -name '.*' 2>/dev/null
	find $root/containers/.trash -mindepth 1 -maxdepth 1 2>/dev/null
	find $root/tmp -type f ! -path '*/config/*'
	find /run/gantry/pods -mindepth 1 -maxdepth 1
	ip -o link show type veth
	find /sys/fs/cgroup -mindepth 1 -type d -name 'gantry-*' ! -name 'gantry-test.service'
	find /sys/fs/cgroup/gantry -mindepth 1 -type d 2>/dev/null
	ps -eo args= | grep -e '[g]antry-monitor' -e '[/]pause'
	iptables-save | grep -e '^:CNI-[0-9a-f]'
	return 0
}
nothing_stale() { [ -z "$(stale)" ]; }

# --- ends of a boot

restart() {
	crictl images -o json | jq -S '[.images[] | {id, repoTags: (.repoTags | sort)}] | sort_by(.id)' >$kept/images
	say "systemctl reboot"
	echo "vm: passed" # there is no later
	systemctl --no-block reboot 2>/dev/null || true # it asks logind first, which is not there
	sleep 60
}

# lose_power keeps pulling, creating and removing until the power is cut, soon.
lose_power() {
	local name n
	for n in 1 2; do
		while :; do
			for name in $(shuf -e $names); do
				crictl rmi "$name"
				crictl --timeout 300s pull "$name"
			done
		done &
	done >/dev/null 2>&1
	for n in a b; do
		while :; do
			id=$(pod "$n$RANDOM") && ctr=$(container "$id" "$n" main busybox:latest sleep 10000) && crictl start "$ctr"
			((RANDOM % 3)) || crictl rmp -fa
		done &
	done >/dev/null 2>&1
	for n in 1 2 3; do
		eventually some_pod
		sleep $((RANDOM % 8 + 2))
	done
	say "the power is cut: $(crictl images -q | wc -l) images, $(crictl pods -q | wc -l) pods, $(leases | wc -l) leases"
	echo "vm: cut the power"
	sleep 60
	fail "the power is still there"
}
some_pod() { [ -n "$(crictl pods -q)" ]; }

# --- beginnings of the next

rebooted() {
	begin
	eventually_clean
	same "images after a reboot" "$(crictl images -o json | jq -S '[.images[] | {id, repoTags: (.repoTags | sort)}] | sort_by(.id)')" "$(cat $kept/images)"
}

cut_off() {
	begin
	eventually_clean
	say "after a power cut: $(crictl images -q | sort -u | wc -l) images"
}

eventually_clean() {
	for _ in $(seq 60); do
		! nothing_stale || break
		sleep 0.5
	done
	nothing_stale || fail "left of the boot before: $(stale)"
	! dmesg | grep -e 'EXT4-fs error' || fail "the file system is damaged"
	quietly gantryd images verify || fail "gantryd images verify: $(cat /tmp/out)"
	say "nothing is left of the boot before, and gantryd images verify finds $(grep -c '^ok' /tmp/out) images well"
}

# whole has every image that is there, and those that were lost, be of use.
whole() {
	local image id ctr n=0
	run_each "what was there" $(crictl images -q | sort -u)
	pull_all
	run_each "all" $(crictl images -q | sort -u)
}

# run_each starts a container of each image, as it wants to be started.
run_each() {
	local what=$1 image id ctr n=0
	shift
	id=$(pod each)
	for image in "$@"; do
		n=$((n + 1))
		ctr=$(container "$id" each "c$n" "$image") || fail "create a container of $image"
		quietly crictl --timeout 300s start "$ctr" || fail "start a container of $image: $(cat /tmp/out)"
	done
	if [ "$what" = all ]; then
		ctr=$(container "$id" each shell busybox:latest sleep 10000)
		quietly crictl start "$ctr" || fail "start: $(cat /tmp/out)"
		same exec "$(timeout 120 crictl exec "$ctr" sh -c 'ls /file; echo hello' 2>/dev/null)" hello
	fi
	quietly crictl --timeout 300s rmp -f "$id" || fail "rmp: $(cat /tmp/out)"
	say "a container of each of $n images: $what"
}

# empty removes all, and looks whether that is all.
empty() {
	eventually nothing_stale
	quietly crictl --timeout 300s rmi --all || fail "rmi --all: $(cat /tmp/out)"
	same "images after rmi --all" "$(crictl images -q)" ""
	eventually no_layers # they are removed in the background
	say "all removed, and nothing is left: $(du -sk $root/storage | cut -f1) kB of storage"
}
no_layers() { ! ls $root/storage/overlay | grep -qE '^[0-9a-f]{64}$'; }

for step in "$@"; do
	$step
done
