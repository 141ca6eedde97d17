#!/bin/sh
# Boots the virtual machine of image.sh, runs a script in it and prints what
# that says. Without KVM all is emulated, five to ten times slower than here.
#
#   run.sh DIR FILES     FILES becomes /gantry in the machine, FILES/inside.sh is run
#
# Exits with 0 if inside.sh did. VM_TIME bounds it, in seconds; the default is
# an hour. VM_LSM is what confines, apparmor or selinux; the default is the
# first. Nothing is kept of what the machine writes, unless VM_DISK names a copy
# of system.img to boot from instead. A script may say "vm: cut the power" to
# have the machine end at that moment, which then is what the script was for.
set -eu

dir=$1
files=$2
disk=$(mktemp "$dir/files-XXXXXX")
out=$(mktemp "$dir/console-XXXXXX")
trap 'rm -f "$disk" "$out" "$out.pid"' EXIT
size=$(($(du -sm "$files" | cut -f1) * 5 / 4 + 200))
mke2fs -q -t ext4 -O ^has_journal -d "$files" "$disk" "${size}M"

lsm=
if [ "${VM_LSM:-apparmor}" = selinux ]; then
	lsm="security=selinux selinux=1"
fi
# kvm tells, once, whether a kernel gets anywhere with KVM: where the device is
# there, a machine that is a virtual one itself may still not be able to.
kvm() {
	[ -w /dev/kvm ] || return 1
	if [ ! -e "$dir/kvm" ]; then
		timeout 20 qemu-system-x86_64 -M q35 -cpu host -accel kvm -m 512 -nographic -no-reboot -nodefaults -serial stdio \
			-kernel "$dir/vmlinuz" -append "console=ttyS0 panic=-1" </dev/null 2>/dev/null | grep -q 'Kernel panic' &&
			echo works >"$dir/kvm" || echo fails >"$dir/kvm"
	fi
	[ "$(cat "$dir/kvm")" = works ]
}

accel=tcg,thread=multi,tb-size=512
cpu=Nehalem
if kvm; then
	accel=kvm
	cpu=host
fi
system="file=$dir/system.img,snapshot=on"
if [ "${VM_DISK:-}" ]; then
	system="file=$VM_DISK"
fi
# show prints what the machine says, and ends it when it asks for that.
show() {
	while IFS= read -r line; do
		echo "$line"
		if [ "$line" = "vm: cut the power" ]; then
			kill -KILL "$(cat "$out.pid")"
		fi
	done
}
timeout --foreground "${VM_TIME:-3600}" qemu-system-x86_64 -M q35 -cpu "$cpu" -accel "$accel" -smp 2 -m 3072 \
	-nographic -no-reboot -nodefaults -serial stdio -kernel "$dir/vmlinuz" \
	-append "root=/dev/nvme0n1 rootfstype=ext4 rw console=ttyS0 quiet loglevel=2 mitigations=off nokaslr audit=0 no_timer_check tsc=reliable cryptomgr.notests systemd.show_status=0 systemd.unified_cgroup_hierarchy=1 $lsm" \
	-pidfile "$out.pid" \
	-drive "$system,if=none,id=d0,format=raw,cache=unsafe" -device nvme,serial=system,drive=d0 \
	-drive "file=$disk,if=none,id=d1,format=raw,cache=unsafe,snapshot=on" -device nvme,serial=files,drive=d1 \
	</dev/null | sed -u 's,\r,,g' | tee "$out" | show || true
grep -q -e '^vm: passed$' -e '^vm: cut the power$' "$out"
