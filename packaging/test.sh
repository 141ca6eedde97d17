#!/bin/sh
# Tests the Debian package in a copy of this machine's root file system, which
# is an overlay: dpkg, its database, systemd's helpers are the real ones, and
# nothing of it is left. No systemd runs there, no network, no other process.
# What needs them is tested in a virtual machine (test/vm/package.sh).
#
#   test.sh DEB
set -eu

if [ "${2:-}" != inside ]; then
	[ "$(id -u)" = 0 ] || { echo "package: root is needed" >&2; exit 1; }
	exec unshare --mount --pid --net --ipc --fork --kill-child "$0" "$(realpath "$1")" inside
fi

deb=$1
here=$(cd "$(dirname "$0")" && pwd)
version=$(dpkg-deb -f "$deb" Version)
older="0.0.1-1"
newer="9.0-1"

# --- a root of its own

mount --make-rprivate /
mkdir -p /run/gantry-package-test
mount -t tmpfs -o mode=755 tmpfs /run/gantry-package-test
cd /run/gantry-package-test
mkdir upper work root
mount -t overlay -o "lowerdir=/,upperdir=upper,workdir=work" overlay root
root=$PWD/root
"$here/other-version.sh" "$deb" "$older" older.deb
"$here/other-version.sh" "$deb" "$newer" newer.deb
cp "$deb" this.deb
mkdir -p "$root/debs"
mount --bind . "$root/debs"
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/tmp"
# A Gantry of this machine's is not what is tested.
rm -rf "$root/etc/gantry" "$root/var/lib/gantry"
# Services are not to be started; none could be.
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
chmod 755 "$root/usr/sbin/policy-rc.d"

in_root() { chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@"; }
dpkg() { in_root dpkg --force-unsafe-io "$@" >dpkg.log 2>&1 </dev/null || { cat dpkg.log; fail "dpkg $*"; }; }

say() { echo "package: $*"; }
fail() {
	echo "package: FAILED: $*" >&2
	exit 1
}
has() { [ -e "$root/$1" ] || [ -L "$root/$1" ] || fail "$1 is missing, $now"; }
lacks() { [ ! -e "$root/$1" ] && [ ! -L "$root/$1" ] || fail "$1 is there, $now"; }
said() { grep -q -- "$1" dpkg.log || { cat dpkg.log; fail "dpkg did not say '$1', $now"; }; }
installed() {
	[ "$(in_root dpkg-query -W -f '${Version} ${db:Status-Status}' gantry)" = "$1 installed" ] || fail "$1 is not installed, $now"
}

# --- the test

now="before anything"
if command -v lintian >/dev/null; then
	say "lintian"
	found=$(lintian --allow-root --fail-on error,warning "$deb" 2>&1) || { echo "$found"; fail "lintian complains"; }
fi

now="after a fresh installation"
say "$now"
dpkg -i /debs/this.deb
installed "$version"
in_root dpkg --verify gantry >verify
[ ! -s verify ] || fail "dpkg --verify: $(cat verify)"
has usr/lib/systemd/system/gantry.service
has etc/systemd/system/multi-user.target.wants/gantry.service
has etc/gantry/gantry.toml
for page in man8/gantryd.8 man8/gantryd-images-pull.8 man8/gantryd-status.8 man5/gantry.toml.5; do
	gzip -dc "$root/usr/share/man/$page.gz" | grep -q '^\.TH' || fail "manual page $page"
done
for file in bash-completion/completions/gantryd zsh/vendor-completions/_gantryd fish/vendor_completions.d/gantryd.fish; do
	grep -q gantryd "$root/usr/share/$file" || fail "completion $file"
done
in_root gantryd --version | grep -Eq '^gantryd [0-9].* \(commit [0-9a-f]{12}' || fail "gantryd --version: $(in_root gantryd --version)"
in_root gantryd config >config || fail "gantryd config"
! grep -q gantry.toml config || fail "the default file sets something: $(grep gantry.toml config)"
in_root systemd-analyze verify --man=no /usr/lib/systemd/system/gantry.service 2>unit || { cat unit; fail "systemd-analyze verify"; }
jq -e '[.components[].name] | contains(["libc"]) or contains(["glibc"])' "$root/usr/share/doc/gantry/gantryd.cdx.json" >/dev/null || fail "the list of components lacks the C library"
modules=$(go version -m "$root/usr/bin/gantryd" | awk -F '\t' '$2 == "dep"' | wc -l)
[ "$(jq '[.components[] | select(.purl // "" | startswith("pkg:golang/"))] | length' "$root/usr/share/doc/gantry/gantryd.cdx.json")" -ge "$modules" ] ||
	fail "the list of components has fewer than the $modules modules of gantryd"

now="after an upgrade with the default configuration"
say "$now"
dpkg -i /debs/newer.deb
installed "$newer"
grep -q '^# Of 9.0-1' "$root/etc/gantry/gantry.toml" || fail "the default configuration is not the new one"
lacks etc/gantry/gantry.toml.dpkg-dist

now="after a downgrade"
say "$now"
dpkg -i /debs/older.deb
said downgrading
installed "$older"
grep -q "^# Of $older" "$root/etc/gantry/gantry.toml" || fail "the default configuration is not the old one"

now="after an upgrade with a configuration that was changed, and gantryd disabled"
say "$now"
echo 'log_level = "debug"' >>"$root/etc/gantry/gantry.toml"
rm "$root/etc/systemd/system/multi-user.target.wants/gantry.service"
dpkg --force-confdef --force-confold -i /debs/this.deb
installed "$version"
in_root gantryd config | grep -q '^log_level = "debug"' || fail "the changed configuration is not kept"
has etc/gantry/gantry.toml.dpkg-dist
lacks etc/systemd/system/multi-user.target.wants/gantry.service

# pods imitates what gantryd leaves on a node: programs that run, mounts, and,
# mounted below its root, directories that are not its own.
pods() {
	in_root mkdir -p /var/lib/gantry/bin /var/lib/gantry/storage/other "/var/lib/gantry/storage/it's mine" /run/gantry/pods/a/shm /srv/precious /etc/gantry/keys
	in_root cp /bin/sleep /var/lib/gantry/bin/gantry-monitor-000000000000-child
	in_root cp /bin/dash /var/lib/gantry/bin/gantry-monitor-000000000000
	in_root sh -c 'cd /; /var/lib/gantry/bin/gantry-monitor-000000000000 -c "sleep 1000 & sleep 1000 & wait; sleep 1000" >/dev/null 2>&1 &'
	echo keep >"$root/srv/precious/file"
	echo '{}' >"$root/run/gantry/pods/a/pod.json"
	mount -t tmpfs tmpfs "$root/run/gantry/pods/a/shm"
	mount --bind "$root/srv/precious" "$root/var/lib/gantry/storage/it's mine"
	mount -t tmpfs tmpfs "$root/var/lib/gantry/storage/other"
	echo keep >"$root/var/lib/gantry/storage/other/file"
	echo key >"$root/etc/gantry/keys/key.pem"
}

running() { ls -l /proc/[0-9]*/exe 2>/dev/null | grep -c 'gantry-monitor\|/sleep$' || true; }

now="after a removal with pods"
say "$now"
pods
mount -t proc proc /proc
sleep 0.3
[ "$(running)" = 3 ] || fail "the imitation has $(running) processes"
dpkg -r gantry
said "1 pods go on without gantryd"
lacks usr/bin/gantryd
lacks usr/lib/systemd/system/gantry.service
has etc/gantry/gantry.toml
has run/gantry/pods/a/pod.json
has var/lib/gantry/.package/gantryd
grep -q debug "$root/var/lib/gantry/.package/gantry.toml" || fail "the configuration is not kept for a purge"
[ "$(running)" = 3 ] || fail "$(running) of 3 processes run, $now"

now="after an installation upon the removed one"
say "$now"
dpkg --force-confdef --force-confold -i /debs/this.deb
installed "$version"
lacks var/lib/gantry/.package
in_root gantryd config | grep -q '^log_level = "debug"' || fail "the changed configuration is not kept, $now"
[ "$(running)" = 3 ] || fail "$(running) of 3 processes run, $now"

now="after a purge"
say "$now"
dpkg -P gantry
[ "$(running)" = 0 ] || { ls -l /proc/[0-9]*/exe; fail "processes run, $now"; }
for path in usr/bin/gantryd etc/gantry var/lib/gantry run/gantry usr/share/doc/gantry etc/systemd/system/multi-user.target.wants/gantry.service; do
	lacks $path
done
[ "$(cat "$root/srv/precious/file")" = keep ] || fail "a purge removed a file that was mounted below its root"
! grep -q 'gantry/' /proc/self/mountinfo || fail "mounts: $(grep gantry/ /proc/self/mountinfo)"
in_root dpkg-query -W gantry >/dev/null 2>&1 && fail "dpkg knows the package, $now"
left=$(in_root find /etc /var /usr -xdev -newer /debs/this.deb -path '*gantry*' 2>/dev/null) || true
[ -z "$left" ] || fail "files are left: $left"

now="after a purge of a root that is a file system of its own"
say "$now"
dpkg -i /debs/this.deb
mkdir -p "$root/var/lib/gantry"
mount -t tmpfs tmpfs "$root/var/lib/gantry"
mkdir "$root/var/lib/gantry/storage"
dpkg -P gantry
said "is not empty, or a mount, and stays"
[ -z "$(ls -A "$root/var/lib/gantry")" ] || fail "it is not empty, $now"

say "passed"
