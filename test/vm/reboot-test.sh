#!/bin/sh
# Brings the package into a virtual machine whose disk lasts, and boots it several
# times: once to be rebooted with pods up, and VM_CUTS times (2) to have its power
# cut amid pulls and creates; reboot.sh, which runs there, says what each boot
# looks at. Needs `make package`, bin/crictl and the images of the tests, which
# are built if they are not there. Takes seven minutes and more, emulated.
#
# GANTRY_TEST_CGROUP_MANAGER is cgroupfs or systemd; the default is the second.
set -eu

cd "$(dirname "$0")/../.."
test/vm/image.sh .cache/vm
files=.cache/vm/reboot-files
disk=.cache/vm/reboot.img
rm -rf "$files" "$disk"
mkdir -p "$files/bin" "$files/images"
trap 'rm -f "$disk"' EXIT
cp test/vm/inside.sh test/vm/reboot.sh test/vm/lib.sh "$files/"
cp bin/crictl "$files/bin/"
go build -trimpath -tags "${TAGS:?}" -ldflags '-s -w' -o "$files/bin/testimages" ./test/images/testimages
bin=$(realpath "$files/bin")
for set in demo critest; do
	"$bin/testimages" .cache/images $set >/dev/null
	cp -r .cache/images/$set-* "$files/images/"
done
cp build/package/gantry_*.deb "$files/this.deb"

# A node's disk has a journal; the machine's own has none, for it is never kept.
cp --sparse=always .cache/vm/system.img "$disk"
tune2fs -O has_journal "$disk" >/dev/null 2>&1

# boot WHAT... boots it for some of what reboot.sh does.
boot() {
	echo "exec /gantry/reboot.sh ${GANTRY_TEST_CGROUP_MANAGER:-systemd} $*" >"$files/run"
	VM_DISK="$disk" test/vm/run.sh .cache/vm "$files"
}

start=$(date +%s)
boot first pods restart
before="rebooted"
for _ in $(seq "${VM_CUTS:-2}"); do
	boot "$before" whole lose_power
	before="cut_off"
done
boot "$before" whole empty
echo "vm: a reboot and ${VM_CUTS:-2} power cuts in $(($(date +%s) - start)) s"
