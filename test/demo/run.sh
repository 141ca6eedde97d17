#!/bin/bash
# gantryd in the foreground, on private roots below /var/lib/gantry-run and
# /run/gantry-run, with the registries of the internet: what make run runs.
set -euo pipefail
cd "$(dirname "$0")/../.."
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

runtime=${RUNTIME:-crun}
dir=/run/gantry-run
name=gantry-run
subnet=10.214.0.0/24
. test/demo/lib.sh

mkdir -p $dir /var/lib/gantry-run
private_files
rm -f $dir/owner $dir/name # this instance is not a test's
sed -i "s|/gantry-test-$name|/gantry-run|" $dir/gantry.toml
set -- bin/gantryd --config $dir/gantry.toml --root /var/lib/gantry-run --run-root $dir/run \
	--listen $dir/gantry.sock --cni-conf-dir $dir/net.d --cni-bin-dir "$(cni_bin_dir)" \
	--policy $dir/policy.json --default-runtime "$runtime" --log-level info
if [ ! -e /etc/containers/registries.conf ]; then
	echo 'unqualified-search-registries = ["docker.io"]' >$dir/registries.conf
	set -- "$@" --registries-conf $dir/registries.conf
fi
echo "try: export CONTAINER_RUNTIME_ENDPOINT=unix://$dir/gantry.sock PATH=$PWD/bin:\$PATH; crictl pull docker.io/library/nginx:alpine"
exec "$@"
