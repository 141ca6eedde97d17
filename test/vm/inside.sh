#!/bin/sh
# Runs in the virtual machine: what /gantry/run says, with the node made ready.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
export GANTRY_TEST_IMAGES_BUILT=yes
echo "vm: $(uname -r), systemd $(systemctl --version | sed -n '1s/systemd \([0-9]*\).*/\1/p'), cgroup $(stat -f -c %T /sys/fs/cgroup), AppArmor $(cat /sys/module/apparmor/parameters/enabled 2>/dev/null), SELinux $(cat /sys/fs/selinux/enforce 2>/dev/null), $(crun --version | head -n 1), $(runc --version | head -n 1)"
mount --make-rshared /
if sh -e /gantry/run; then
	echo "vm: passed"
else
	echo "vm: FAILED"
fi
