#!/bin/sh
# Prints the list of components (CycloneDX 1.6, JSON) of gantryd: the Go modules
# that the program itself says it is made of, and the C library that the C
# programs in it are linked with.
#
#   components.sh PROGRAM VERSION
set -eu

libc=$(dpkg-query -W -f '${source:Package} ${source:Version}' libc6-dev 2>/dev/null) || libc="glibc unknown"
distribution=$(sed -n 's/^ID=//p' /etc/os-release)
bin/cyclonedx-gomod bin -json -noserial -notimestamp -std -version "v$2" "$1" |
	jq --arg name "${libc% *}" --arg version "${libc#* }" --arg distribution "$distribution" '
		.components += [{
			"bom-ref": "libc", type: "library", name: $name, version: $version, scope: "required",
			purl: "pkg:deb/\($distribution)/\($name)@\($version | @uri)?arch=source",
			description: "linked statically into gantry-monitor, execwait and standin, which gantryd carries"
		}]'
