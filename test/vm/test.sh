#!/bin/sh
# Runs tests in the virtual machine:
#
#   test.sh PACKAGE:REGEXP...    e.g. ./test/integration:AppArmor
#
# Needs `make build tools` and the images of the tests, which any test that
# needs them builds (.cache/images).
set -eu

cd "$(dirname "$0")/../.."
test/vm/image.sh .cache/vm
files=.cache/vm/files
rm -rf "$files"
mkdir -p "$files/src/.cache" "$files/src/bin"
cp go.mod "$files/src/"
cp -r conf "$files/src/"
cp bin/gantryd bin/crictl bin/critest bin/ginkgo "$files/src/bin/"
mkdir "$files/src/.cache/images"
cp -r .cache/images/demo-* .cache/images/critest-* "$files/src/.cache/images/"
cp test/vm/inside.sh "$files/"

# What says how the tests run, they are told in the machine too.
env | grep '^GANTRY_TEST_' | sed "s/^/export /; s/=\\(.*\\)/='\\1'/" >"$files/run"
echo 'failed=' >>"$files/run"
for want in "$@"; do
	package=${want%%:*}
	regexp=${want#*:}
	dir=src/${package#./}
	mkdir -p "$files/$dir"
	cp -r "$package"/. "$files/$dir/"
	go test -c -trimpath -tags "${TAGS:?}" -ldflags '-s -w' -o "$files/$dir/vm.test" "$package"
	cat >>"$files/run" <<RUN
echo "vm: $package $regexp"
cd /gantry/$dir
./vm.test -test.v -test.timeout 2h -test.run '$regexp' || failed="\$failed $package"
RUN
done
echo '[ -z "$failed" ]' >>"$files/run"
exec test/vm/run.sh .cache/vm "$files"
