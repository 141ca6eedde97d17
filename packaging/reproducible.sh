#!/bin/sh
# Builds the packages twice, from copies of this source tree at two places, with
# nothing cached but the modules' sources, and under different umasks, time zones,
# languages and numbers of processors, and compares them. Takes as long as two
# builds of everything: ten minutes on two cores.
#
#   VERSION= COMMIT= SOURCE_DATE_EPOCH= reproducible.sh
set -eu
cd "$(dirname "$0")/.."
: "${VERSION:?}" "${COMMIT:?}" "${SOURCE_DATE_EPOCH:?}"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export GOMODCACHE="$(go env GOMODCACHE)"

# build copies the tree to a directory and builds it there, in the environment
# that the arguments set.
build() {
	dir=$1
	shift
	mkdir -p "$dir"
	git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "$dir"
	echo "reproducible: builds in $dir"
	env GOCACHE="$dir.cache" "$@" make -C "$dir" package "VERSION=$VERSION" "COMMIT=$COMMIT" >"$dir.log" 2>&1 || {
		tail -n 20 "$dir.log"
		exit 1
	}
	rm -rf "$dir.cache"
}

(umask 022 && build "$work/one" TZ=UTC LC_ALL=C)
(umask 077 && build "$work/two/place" TZ=Pacific/Auckland LC_ALL=C.UTF-8 GOMAXPROCS=1 HOME=/nonexistent)
cp "$work/one/build/package/SHA256SUMS" "$work/sums"
cd "$work/two/place/build/package"
if sha256sum --check "$work/sums"; then
	echo "reproducible: the same bytes"
else
	command -v diffoscope >/dev/null && for file in *; do diffoscope "$work/one/build/package/$file" "$file" || true; done
	exit 1
fi
