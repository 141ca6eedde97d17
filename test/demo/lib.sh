# Shared by demo.sh and run.sh: a private instance of gantryd below $dir.
# Sourced, with the source tree as working directory.

# private_files writes everything that keeps the instance apart from the
# machine's own container engines. Needs: dir, name, subnet.
private_files() {
	mkdir -p "$dir/net.d" "$dir/root" "$dir/run"
	cat >"$dir/net.d/10-$name.conflist" <<-EOF
	{
	  "cniVersion": "1.0.0",
	  "name": "$name",
	  "plugins": [
	    {
	      "type": "bridge", "bridge": "$name", "isGateway": true, "ipMasq": true, "hairpinMode": true,
	      "ipam": {
	        "type": "host-local", "dataDir": "$dir/ipam",
	        "ranges": [[{"subnet": "$subnet"}]], "routes": [{"dst": "0.0.0.0/0"}]
	      }
	    },
	    {"type": "portmap", "capabilities": {"portMappings": true}, "snat": true}
	  ]
	}
	EOF
	echo '{"default":[{"type":"insecureAcceptAnything"}]}' >"$dir/policy.json"
	cat >"$dir/gantry.toml" <<-EOF
	cgroup_parent = "/gantry-test-$name"

	[runtimes.$runtime]
	path = "$(command -v "$runtime")"
	root = "$dir/run/runtime-$runtime"
	EOF
	echo $$ >"$dir/owner" # these two are for test/setup/sweep.sh
	echo "$name" >"$dir/name"
}

cni_bin_dir() {
	for plugins in /usr/lib/cni /opt/cni/bin; do
		if [ -x $plugins/bridge ]; then
			echo $plugins
			return
		fi
	done
	echo "no CNI plugins in /usr/lib/cni and /opt/cni/bin" >&2
	return 1
}

# gantryd_arguments prints the arguments that make the instance fully private.
gantryd_arguments() {
	echo --config "$dir/gantry.toml" --root "$dir/root" --run-root "$dir/run" \
		--listen "$dir/gantry.sock" --cni-conf-dir "$dir/net.d" --cni-bin-dir "$(cni_bin_dir)" \
		--policy "$dir/policy.json" --default-runtime "$runtime"
}

# free_subnet picks a /24 that no route of the machine covers.
free_subnet() {
	for third in $(shuf -i 0-255 -n 20); do
		if ! ip -4 route show | grep -q "^10\.213\.$third\."; then
			echo "10.213.$third.0/24"
			return
		fi
	done
	echo "no free subnet below 10.213.0.0/16" >&2
	return 1
}
