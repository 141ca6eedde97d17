#!/bin/sh
# Makes the disk of a virtual machine with systemd, cgroup v2, AppArmor and
# SELinux (the kernel's command line chooses which of the two works):
#
#   image.sh DIR     DIR/system.img and DIR/vmlinuz
#
# It is made once, of this machine's own distribution and packages, and again
# when this script changes. Takes two minutes and 3 GB.
set -eu

say() { echo "vm: $*"; }

dir=$1
policy=${0%/*}/container.cil
packages=systemd,systemd-sysv,udev,dbus,apparmor,kmod,linux-image-cloud-amd64,\
crun,runc,containernetworking-plugins,docker-registry,iptables,nftables,iproute2,conntrack,procps,util-linux,\
busybox-static,ca-certificates,curl,jq,sudo,skopeo,openssl,selinux-policy-default,policycoreutils,selinux-utils,etcd-server

mirror=$(apt-get indextargets --format '$(SITE) $(RELEASE) $(CREATED_BY)' | awk '$3 == "Packages" { print $1, $2; exit }')
release=${mirror#* }
mirror=${mirror% *}

# The disk is as old as what it was made from.
key=$( (cat "$0" "$policy" && echo "$release") | sha256sum | cut -c1-16)
if [ "$(cat "$dir/key" 2>/dev/null)" = "$key" ]; then
	say "the disk is there: $dir/system.img"
	exit 0
fi

rm -rf "$dir"
mkdir -p "$dir"
root=$dir/root
trap 'rm -rf "$root"' EXIT
say "debootstrap $release: systemd, a kernel, runtimes and plugins (its output is in $dir/debootstrap.log)"
debootstrap --variant=minbase --include="$packages" "$release" "$root" "$mirror" >"$dir/debootstrap.log" 2>&1 || {
	tail -n 20 "$dir/debootstrap.log"
	exit 1
}
cp "$root"/boot/vmlinuz-* "$dir/vmlinuz"
rm -rf "$root"/boot/* "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
find "$root"/lib/modules -path '*drivers*' -name '*.ko' \
	! -path '*/net/*' ! -path '*/block/*' -delete

: >"$root/etc/fstab"
echo 0123456789abcdef0123456789abcdef >"$root/etc/machine-id"
echo gantry-vm >"$root/etc/hostname"
echo "127.0.0.1 localhost gantry-vm" >"$root/etc/hosts"
mkdir -p "$root/gantry"

# What the machine is for: it runs what the second disk says, and is gone.
cat >"$root/etc/systemd/system/gantry-test.service" <<'UNIT'
[Unit]
Description=What the second disk asks for
After=basic.target dbus.service apparmor.service
Wants=dbus.service
[Service]
Type=oneshot
ExecStartPre=/bin/sh -c 'exec mount $(test -e /sys/fs/selinux/enforce && echo -o context=system_u:object_r:bin_t:s0) /dev/nvme1n1 /gantry'
ExecStart=/gantry/inside.sh
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
Delegate=yes
LimitNOFILE=65536
TasksMax=infinity
ExecStopPost=/bin/systemctl --no-block poweroff
UNIT
in=$root/etc/systemd/system
mkdir -p "$in/multi-user.target.wants"
ln -s ../gantry-test.service "$in/multi-user.target.wants/gantry-test.service"
for unit in systemd-udevd.service systemd-udev-trigger.service systemd-udevd-kernel.socket systemd-udevd-control.socket \
	modprobe@.service systemd-logind.service getty.target getty@.service serial-getty@.service \
	apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer motd-news.timer \
	docker-registry.service etcd.service systemd-pstore.service systemd-random-seed.service; do
	ln -sf /dev/null "$in/$unit"
done
printf '[Journal]\nStorage=volatile\nForwardToConsole=no\n' >"$root/etc/systemd/journald.conf"
printf 'overlay\nveth\nbridge\nbr_netfilter\nnf_tables\nnft_compat\nxt_comment\nxt_MASQUERADE\n' >"$root/etc/modules-load.d/gantry.conf"

say "SELinux: a policy for containers, and labels"
cp "$policy" "$root/tmp/"
unshare --mount sh -ec 'mount -t proc proc "$0/proc"; exec chroot "$0" semodule -i /tmp/container.cil' "$root" >>"$dir/debootstrap.log" 2>&1
printf 'SELINUX=permissive\nSELINUXTYPE=default\n' >"$root/etc/selinux/config"
unshare --mount sh -ec 'mount -t proc proc "$0/proc"; exec chroot "$0" "$@"' "$root" setfiles -F /etc/selinux/default/contexts/files/file_contexts / >>"$dir/debootstrap.log" 2>&1

say "the file system"
size=$(($(du -sm "$root" | cut -f1) + 6000))
mke2fs -q -t ext4 -O ^has_journal -d "$root" "$dir/system.img" "${size}M"
echo "$key" >"$dir/key"
say "$(du -m "$dir/system.img" | cut -f1) MB"
