#!/bin/sh
# Installs, by apt, what building and testing Gantry needs and this machine
# lacks: Debian 12, Debian 13 and Ubuntu 24.04, as root. Run it as often as you
# like. It starts no service, upgrades nothing, and asks for package lists only
# when there are none or a package is not found in them.
#
#   install.sh          everything (demo, tests, benchmarks)
#   install.sh demo     what make demo and make run need
#   install.sh fuzz     everything, and clang with its fuzzing library
#   install.sh cluster  everything, and the database of a control plane
#   install.sh vm       everything, and what makes and runs a virtual machine
set -eu

say() { echo "setup: $*"; }
die() { echo "setup: $*" >&2; exit 1; }

check_beforehand() {
	missing=
	for tool in git make; do
		command -v "$tool" >/dev/null || missing="$missing $tool"
	done
	[ -z "$missing" ] || die "these are expected beforehand:$missing. On Debian and Ubuntu: apt-get install$missing"
	command -v go >/dev/null || die "Go 1.26 or newer is expected beforehand. Get it from https://go.dev/dl/ and put its bin directory into PATH, e.g.
  tar -C /usr/local -xzf go1.26.0.linux-amd64.tar.gz && export PATH=\$PATH:/usr/local/go/bin"
	version=$(GOTOOLCHAIN=local go env GOVERSION)
	minor=$(echo "$version" | sed -n 's/^go1\.\([0-9]*\).*/\1/p')
	[ "${minor:-0}" -ge 26 ] || die "Go 1.26 or newer is expected, this is $version. Get it from https://go.dev/dl/"
}

# check_system stops where the packages' names are not known to be right.
check_system() {
	[ "$(id -u)" = 0 ] || die "root is needed: Gantry makes namespaces, mounts and cgroups, and this installs packages"
	command -v apt-get >/dev/null || die "no apt-get here. On other systems install by hand: $(packages | tr '\n' ' ')"
	# shellcheck disable=SC1091
	system=$(. /etc/os-release && echo "$ID $VERSION_ID")
	case $system in
	"debian 12" | "debian 13" | "ubuntu 24.04") ;;
	*) say "this is $system; tried are Debian 12 and 13 and Ubuntu 24.04" ;;
	esac
}

# packages lists, one to a line, what this machine needs.
packages() {
	echo "gcc libc6-dev crun containernetworking-plugins docker-registry iptables iproute2 curl jq procps util-linux ca-certificates" | tr ' ' '\n'
	[ "$what" = demo ] || echo "runc containerd dbus-daemon nftables busybox-static skopeo gnupg umoci dpkg-dev bzip2 xz-utils patch e2fsprogs xfsprogs" | tr ' ' '\n'
	[ "$what" != cluster ] || echo etcd-server
	[ "$what" != vm ] || echo "qemu-system-x86 debootstrap e2fsprogs" | tr ' ' '\n'
	[ "$what" != fuzz ] || echo "clang libclang-rt-$(clang_version)-dev" | tr ' ' '\n'
}

# clang_version is the number in the name of the compiler's own packages.
clang_version() { apt-cache depends clang | sed -n 's/.*Depends: clang-\([0-9]*\)$/\1/p' | head -n 1; }

lacking() {
	for package in $(packages); do
		dpkg-query -W -f '${db:Status-Abbrev}\n' "$package" 2>/dev/null | grep -q '^ii' || echo "$package"
	done
}

# install installs packages without letting their scripts start a service.
install() {
	policy=/usr/sbin/policy-rc.d
	ours=
	if [ ! -e $policy ] && [ ! -L $policy ]; then
		printf '#!/bin/sh\nexit 101\n' >$policy
		chmod 755 $policy
		ours=yes
		trap 'rm -f /usr/sbin/policy-rc.d' EXIT
	fi
	status=0
	# shellcheck disable=SC2086
	DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends --no-upgrade "$@" </dev/null || status=$?
	if [ "$ours" ]; then
		rm -f $policy
		trap - EXIT
	fi
	return $status
}

# disable keeps the services of freshly installed packages from starting at the
# next boot, where systemd runs: the tests start what they need themselves.
disable() {
	[ -d /run/systemd/system ] || return 0
	for package in "$@"; do
		case $package in
		containerd | docker-registry) systemctl disable --quiet "$package.service" || true ;;
		esac
	done
}

what=${1:-all}
check_beforehand
check_system
list=$(lacking)
if [ -z "$list" ]; then
	say "everything is installed"
	exit 0
fi
# shellcheck disable=SC2086
set -- $list
say "installs with apt: $*"
if ! install "$@"; then
	say "that failed; with fresh package lists once more"
	apt-get update -q </dev/null
	install "$@"
fi
disable "$@"
say "done"
