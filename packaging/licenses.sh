#!/bin/sh
# Prints the licenses and notices of the Go modules that a program is made of,
# and of Go itself, as they want to be handed on with it:
#
#   licenses.sh PROGRAM
set -eu

print() {
	found=
	for file in "$2"/LICENSE* "$2"/LICENCE* "$2"/COPYING* "$2"/NOTICE*; do
		[ -f "$file" ] || continue
		found=yes
		printf '==== %s: %s\n\n' "$1" "${file##*/}"
		cat "$file"
		printf '\n\n'
	done
	[ "$found" ] || { echo "licenses: $1 has none in $2" >&2; exit 1; }
}

modules=$(mktemp)
trap 'rm -f "$modules"' EXIT
go version -m "$1" | awk -F '\t' '$2 == "dep" { print $3 }' >"$modules"
[ -s "$modules" ] || { echo "licenses: $1 tells no modules" >&2; exit 1; }
print "Go $(go env GOVERSION)" "$(go env GOROOT)"
# shellcheck disable=SC2046
go list -m -f '{{.Path}}	{{.Version}}	{{.Dir}}' $(cat "$modules") | while IFS='	' read -r path version dir; do
	print "$path $version" "$dir"
done
