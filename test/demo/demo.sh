#!/bin/bash
# The walk-through of a real pod, with crictl: each command is printed, run, and
# its result compared with what it must be; the first deviation ends the demo
# with an error. Everything is private to a temporary directory and a bridge of
# its own, and gone at the end.
#
#   RUNTIME=crun|runc   the OCI runtime (crun)
#   KEEP=1              leave the directory for a look after a failure
set -euo pipefail
cd "$(dirname "$0")/../.."
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

runtime=${RUNTIME:-crun}
dir=$(mktemp -d "${TMPDIR:-/tmp}/gantry-env-demo-XXXXXX")
name=gd$(od -An -N4 -tx4 /dev/urandom | tr -d ' ')
chmod 755 "$dir"
begin=$(date +%s%N)
daemon='' registry=''
. test/demo/lib.sh

fail() {
	printf '\n*** the demo failed: %s\n' "$*" >&2
	if [ -s "$dir/gantryd.log" ]; then
		printf '*** the end of the log of gantryd:\n' >&2
		tail -n 30 "$dir/gantryd.log" >&2
	fi
	exit 1
}

# clean_up removes by force what the walk-through has not removed itself.
clean_up() {
	status=$?
	trap - EXIT
	for pid in $daemon $registry; do
		kill -9 "$pid" 2>/dev/null && wait "$pid" 2>/dev/null || true
	done
	ip link delete "$name" 2>/dev/null || true
	if [ "$status" != 0 ] && [ "${KEEP:-}" ]; then
		echo "kept $dir" >&2
	else
		echo 0 >"$dir/owner" # nobody: the sweep takes what belongs to the dead
		test/setup/sweep.sh >/dev/null
	fi
	exit $status
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# show prints a command as the reader would type it, runs it, prints what it
# prints, and keeps its standard output in $out.
show() {
	printf '\n$ %s\n' "$*"
	status=0
	out=$("$@" 2>"$dir/stderr") || status=$?
	cat "$dir/stderr"
	[ -z "$out" ] || printf '%s\n' "$out"
	[ $status = 0 ] || fail "'$*' ended with status $status"
}

# expect fails unless the last output has a line that matches the expression.
expect() { grep -Eq -- "$1" <<<"$out" || fail "expected to see /$1/"; }
absent() { ! grep -Eq -- "$1" <<<"$out" || fail "did not expect to see /$1/"; }
say() { printf '\n# %s\n' "$*"; }

# eventually runs a check until it succeeds, for 10 s.
eventually() {
	for _ in $(seq 100); do
		if "$@"; then return; fi
		sleep 0.1
	done
	fail "waited 10 s in vain for: $*"
}

crictl() { bin/crictl --config "$dir/crictl.yaml" "$@"; }

# --- a registry with the two images, and gantryd

start_registry() {
	say "a registry on this machine, with an nginx and a busybox image built from the distribution's packages"
	port=$((20000 + RANDOM % 10000))
	cat >"$dir/registry.yml" <<-EOF
	version: 0.1
	log: {level: warn}
	storage: {filesystem: {rootdirectory: $dir/registry}}
	http: {addr: "127.0.0.1:$port"}
	EOF
	docker-registry serve "$dir/registry.yml" >"$dir/registry.log" 2>&1 &
	registry=$!
	eventually curl -sf -o /dev/null "http://127.0.0.1:$port/v2/"
	go run ./test/images/testimages .cache/images demo "127.0.0.1:$port" >/dev/null || fail "the images could not be built"
	cat >"$dir/registries.conf" <<-EOF
	unqualified-search-registries = ["docker.io"]
	short-name-mode = "disabled"

	[[registry]]
	prefix = "docker.io"
	location = "127.0.0.1:$port"
	insecure = true
	EOF
}

answers() { crictl version >/dev/null 2>&1 || { kill -0 "$daemon" 2>/dev/null || fail "gantryd ended at once"; false; }; }

start_gantryd() {
	cat >"$dir/crictl.yaml" <<-EOF
	runtime-endpoint: unix://$dir/gantry.sock
	image-endpoint: unix://$dir/gantry.sock
	timeout: 30
	EOF
	# shellcheck disable=SC2046
	set -- bin/gantryd $(gantryd_arguments) --registries-conf "$dir/registries.conf" --log-level debug
	printf '\n$ %s &\n' "$*"
	"$@" >"$dir/gantryd.log" 2>&1 &
	daemon=$!
	eventually answers
	eventually network_ready
	show crictl version
	expect 'RuntimeName: +gantry'
}

network_ready() { crictl info 2>/dev/null | jq -e '.status.conditions | all(.status)' >/dev/null; }

write_pod() {
	cat >"$dir/sandbox.yml" <<-EOF
	metadata:
	  name: nginx
	  namespace: default
	  uid: gantry-demo
	  attempt: 1
	hostname: nginx
	log_directory: $dir/logs
	dns_config:
	  servers:
	    - 8.8.8.8
	linux: {}
	EOF
	cat >"$dir/container.yml" <<-EOF
	metadata:
	  name: nginx
	image:
	  image: nginx:alpine
	log_path: nginx.log
	linux: {}
	EOF
	mkdir -p "$dir/logs"
	show cat "$dir/sandbox.yml" "$dir/container.yml"
}

# --- the walk-through

run_pod() {
	say "a pod"
	show crictl runp "$dir/sandbox.yml"
	pod=$out
	expect '^[0-9a-f]{64}$'
	show crictl pods
	expect "^${pod:0:13} .* Ready +nginx +default +1 "
	show crictl inspectp -o go-template --template '{{.status.network.ip}}' "$pod"
	ip=$out
	expect '^10\.213\.[0-9]+\.[0-9]+$'
	say "the OCI runtime knows it, and its only process is /pause"
	show "$runtime" --root "$dir/run/runtime-$runtime" list
	expect "^$pod .* running "
	pause=$(awk -v id="$pod" '$1 == id { print $2 }' <<<"$out")
	show ps -o pid,args -p "$pause"
	expect "$pause /pause"
}

create_container() {
	say "an image and a container"
	show crictl pull nginx:alpine
	expect 'sha256:[0-9a-f]{64}|up to date'
	show crictl images
	expect '^docker.io/library/nginx +alpine '
	show crictl create "$pod" "$dir/container.yml" "$dir/sandbox.yml"
	ctr=$out
	expect '^[0-9a-f]{64}$'
	show crictl ps -a
	expect "^${ctr:0:13} .* Created +nginx "
	say "the runtime has it too: created, its init waits for the start"
	show "$runtime" --root "$dir/run/runtime-$runtime" list
	expect "^$ctr .* created "
	init=$(awk -v id="$ctr" '$1 == id { print $2 }' <<<"$out")
	show ps -o pid,args -p "$init"
	expect "^ *$init +.*(crun|runc|init|exe)"
	absent 'nginx: '
}

request_logged() { crictl logs "$ctr" 2>/dev/null | grep -q 'GET / HTTP/1.1'; }
workers() { pgrep -P "$init" >/dev/null; }

start_container() {
	show crictl start "$ctr"
	show crictl ps
	expect "^${ctr:0:13} .* Running +nginx "
	say "the same process is nginx now: a master and its worker"
	eventually workers
	show ps -o pid,ppid,args --pid "$init" --ppid "$init"
	expect "^ *$init +[0-9]+ nginx: master process"
	expect "^ *[0-9]+ +$init nginx: worker process"
}

use_container() {
	say "its network"
	if show_exec crictl exec "$ctr" ip addr; then :; else
		say "crictl exec streams; ExecSync does without"
		show crictl exec -s "$ctr" ip addr
	fi
	expect "inet $ip/"
	expect ' eth0'
	show crictl exec -s "$ctr" cat /etc/resolv.conf
	expect '^nameserver 8.8.8.8$'
	show curl -sS --max-time 5 "http://$ip"
	expect 'Welcome to nginx!'
	eventually request_logged
	show crictl logs "$ctr"
	expect 'GET / HTTP/1.1'
}

# show_exec is show for the one command that may not be there yet.
show_exec() {
	printf '\n$ %s\n' "$*"
	if out=$("$@" 2>&1); then
		printf '%s\n' "$out"
	else
		grep -qi 'unimplemented' <<<"$out" || { printf '%s\n' "$out"; fail "'$*' did not succeed"; }
		return 1
	fi
}

remove_all() {
	say "and away with it"
	show crictl stop "$ctr"
	show crictl ps -a
	expect "^${ctr:0:13} .* Exited +nginx "
	show crictl rm "$ctr"
	show crictl ps -a
	absent "^${ctr:0:13}"
	show crictl stopp "$pod"
	show crictl pods
	expect "^${pod:0:13} .* NotReady +nginx "
	show crictl rmp "$pod"
	show crictl pods
	absent "^${pod:0:13}"
}

# --- nothing is left

# left_processes lists what is in the demo's cgroups, or names its directory or
# its pod, besides what the demo itself has started.
left_processes() {
	{
		pgrep -f -- "$dir/|$pod"
		grep -lsF "gantry-test-$name" /proc/[0-9]*/cgroup | cut -d/ -f3
	} | sort -u | while read -r pid; do
		case " $daemon $registry $$ $BASHPID " in *" $pid "*) continue ;; esac
		ps -o pid=,args= -p "$pid" | sed 's/^/process /'
	done
}

leftovers() {
	left_processes
	awk -v dir="$dir/run/" 'index($5, dir) == 1 { print "mount " $5 }' /proc/self/mountinfo
	ip -o link show master "$name" 2>/dev/null | sed 's/^/interface /'
	find "$dir/ipam" -name '10.*' 2>/dev/null | sed 's/^/address /'
	{ iptables-save; ip6tables-save; } 2>/dev/null | grep -F "$name" | sed 's/^/firewall rule /'
	find /sys/fs/cgroup -path "*/gantry-test-$name/*" -type d 2>/dev/null | sed 's/^/cgroup /'
	find "$dir/run/pods" "$dir/root/containers" "$dir/run/runtime-$runtime" -mindepth 1 ! -name .trash 2>/dev/null | sed 's/^/file /'
}

nothing_left() { [ -z "$(leftovers)" ]; }

check_nothing_left() {
	say "nothing is left: no process, mount, interface, address, firewall rule, cgroup or file"
	for _ in $(seq 30); do
		if nothing_left; then
			echo "right, nothing."
			return
		fi
		sleep 0.1
	done
	leftovers || true
	fail "the things above are left"
}

subnet=$(free_subnet)
private_files
start_registry
start_gantryd
write_pod
run_pod
create_container
start_container
use_container
remove_all
check_nothing_left
kill "$daemon"
wait "$daemon" || fail "gantryd ended with status $? when it was asked to end"
daemon=''
printf '\n# the demo succeeded in %s s with %s\n' "$(((($(date +%s%N) - begin) / 10000000)))" "$runtime" | sed -E 's/ ([0-9]+)([0-9]{2}) s/ \1.\2 s/'
