# What the scripts in the virtual machine share. They run in /gantry, with bash.
export PATH=/gantry/bin:$PATH

say() { echo "vm: $(cut -d. -f1 /proc/uptime)s $*"; }
fail() {
	echo "vm: FAILED: $*"
	cat /tmp/dpkg.log 2>/dev/null || true
	systemctl status --no-pager gantry 2>&1 | head -n 15 || true
	journalctl --no-pager -u gantry -n 20 2>&1 || true
	exit 1
}
same() { [ "$2" = "$3" ] || fail "$1: $2, not $3"; }

# eventually runs a check until it succeeds, for two minutes: all is emulated.
eventually() {
	for _ in $(seq 240); do
		if "$@"; then return; fi
		sleep 0.5
	done
	fail "in vain for 2 minutes: $*"
}
quietly() { "$@" >/tmp/out 2>&1; }

# configure_node makes a node of the machine: a network, crictl and where images
# come from, by the package's own examples.
configure_node() {
	local examples=/usr/share/doc/gantry/examples host
	install -D -m 644 -t /etc/cni/net.d $examples/10-gantry-bridge.conflist
	install -m 644 $examples/crictl.yaml /etc/crictl.yaml
	mkdir -p /etc/containers
	for host in docker.io registry.k8s.io k8s.gcr.io gcr.io; do
		printf '[[registry]]\nprefix = "%s"\nlocation = "127.0.0.1:5000"\ninsecure = true\n' $host
	done >/etc/containers/registries.conf
}

# serve_images starts a registry, whose files a reboot ends, with sets of images.
serve_images() {
	mkdir -p /run/registry
	printf 'version: 0.1\nlog: {level: warn}\nstorage: {filesystem: {rootdirectory: /run/registry}}\nhttp: {addr: "127.0.0.1:5000"}\n' >/run/registry.yml
	docker-registry serve /run/registry.yml >/run/registry.log 2>&1 &
	registry=$!
	eventually quietly curl -sf http://127.0.0.1:5000/v2/
	for set in "$@"; do
		bin/testimages images "$set" 127.0.0.1:5000 >/dev/null
	done
}

answers() { quietly crictl version; }
ready() { crictl info 2>/dev/null | jq -e '.status.conditions | all(.status)' >/dev/null; }
