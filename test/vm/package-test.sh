#!/bin/sh
# Brings the packages into the virtual machine and runs package.sh there. Needs
# `make package`, bin/crictl and the images of the tests, which are built if they
# are not there (.cache/images). Takes five to fifteen minutes, emulated.
set -eu

cd "$(dirname "$0")/../.."
test/vm/image.sh .cache/vm
files=.cache/vm/package-files
rm -rf "$files"
mkdir -p "$files/bin"
cp test/vm/inside.sh "$files/"
cp test/vm/package.sh test/vm/lib.sh "$files/"
echo "exec /gantry/package.sh" >"$files/run"
cp bin/crictl "$files/bin/"
go build -trimpath -tags "${TAGS:?}" -ldflags '-s -w' -o "$files/bin/testimages" ./test/images/testimages
bin=$(realpath "$files/bin")
"$bin/testimages" .cache/images demo >/dev/null
mkdir "$files/images"
cp -r .cache/images/demo-* "$files/images/"
cp build/package/gantry_*.deb "$files/this.deb"
cp build/package/gantry-*.tar.gz "$files/gantry.tar.gz"
packaging/other-version.sh "$files/this.deb" 9.0-1 "$files/newer.deb"
packaging/other-version.sh "$files/this.deb" 0.0.1-1 "$files/older.deb"
exec test/vm/run.sh .cache/vm "$files"
