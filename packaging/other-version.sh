#!/bin/sh
# Makes a package that differs from another one in its version only, and in a
# line at the end of its configuration file: for tests of upgrades, without
# building anything.
#
#   other-version.sh DEB VERSION OUT-DEB
set -eu
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
dpkg-deb -R "$1" "$tree"
sed -i "s/^Version: .*/Version: $2/" "$tree/DEBIAN/control"
echo "# Of $2." >>"$tree/etc/gantry/gantry.toml"
dpkg-deb --root-owner-group -Znone --build "$tree" "$3" >/dev/null
