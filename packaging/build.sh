#!/bin/sh
# Makes the packages of the programs that make has built:
#
#   build.sh OUT      OUT/gantry_VERSION_ARCH.deb, OUT/gantry-VERSION-linux-ARCH.tar.gz,
#                     their list of components (CycloneDX) and SHA256SUMS
#
# By make package, which sets VERSION, COMMIT and SOURCE_DATE_EPOCH (seconds; the
# time of all files). The same sources, compiler and C library give the same
# bytes, wherever and whenever: make package-check tells.
set -eu

out=$1
: "${VERSION:?}" "${COMMIT:?}" "${SOURCE_DATE_EPOCH:?}"
export SOURCE_DATE_EPOCH LC_ALL=C TZ=UTC
umask 022
cd "$(dirname "$0")/.."

arch=$(go env GOARCH)
deb_arch=$arch
[ "$arch" != arm ] || deb_arch=armhf
# In a Debian version what follows a tilde sorts before the release: 0.1.0~dev.
deb_version=$(echo "$VERSION" | sed 's/-/~/')-1
name=gantry-$VERSION-linux-$arch

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tree=$work/tree
doc=$tree/usr/share/doc/gantry

fill() {
	sed -e "s/@DEB_VERSION@/$deb_version/" -e "s/@ARCH@/$deb_arch/" -e "s/@COMMIT@/$COMMIT/" \
		-e "s/@DATE@/$(date -R -d "@$SOURCE_DATE_EPOCH")/" -e "s/@SIZE@/${size:-}/" "$1"
}

# put installs a file, and the directories that it needs.
put() { install -D -m "$1" "$2" "$tree/$3"; }

# programs installs what runs, and what explains it.
programs() {
	put 755 bin/gantryd usr/bin/gantryd
	put 644 conf/gantry.service usr/lib/systemd/system/gantry.service
	mkdir -p "$work/man"
	bin/gantryd-man man "$work/man"
	for page in "$work"/man/*; do
		gzip -9n "$page"
		put 644 "$page.gz" "usr/share/man/man${page##*.}/${page##*/}.gz"
	done
	for shell in bash zsh fish; do
		bin/gantryd completion $shell >"$work/completion.$shell"
	done
	put 644 "$work/completion.bash" usr/share/bash-completion/completions/gantryd
	put 644 "$work/completion.zsh" usr/share/zsh/vendor-completions/_gantryd
	put 644 "$work/completion.fish" usr/share/fish/vendor_completions.d/gantryd.fish
}

# documents installs what nothing reads but people: other packages own these
# files' names in /etc, or the administrator does.
documents() {
	for file in gantry.toml crictl.yaml 10-gantry-bridge.conflist policy.json registries.conf; do
		put 644 "conf/$file" "usr/share/doc/gantry/examples/$file"
	done
	for file in docs/*.md; do
		put 644 "$file" "usr/share/doc/gantry/docs/${file##*/}"
	done
	put 644 README.md usr/share/doc/gantry/README.md
	put 644 ARCHITECTURE.md usr/share/doc/gantry/ARCHITECTURE.md
	packaging/licenses.sh bin/gantryd >"$work/licenses"
	gzip -9n "$work/licenses"
	put 644 "$work/licenses.gz" usr/share/doc/gantry/licenses.gz
	packaging/components.sh bin/gantryd "$VERSION" >"$work/gantryd.cdx.json"
	put 644 "$work/gantryd.cdx.json" usr/share/doc/gantry/gantryd.cdx.json
}

# date_all gives the tree the time and modes that it has everywhere.
date_all() {
	chmod -R u=rwX,go=rX "$tree"
	find "$tree" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
}

# archive makes the tar.gz, of files only: unpacked over /, it changes no
# directory that is there. It has no /etc: gantryd runs without, and unpacking a
# newer version must not undo what an administrator has written.
archive() {
	put 644 LICENSE usr/share/doc/gantry/LICENSE
	date_all
	(cd "$tree" && find usr ! -type d | sort) >"$work/files"
	tar -C "$tree" --no-recursion --owner=0 --group=0 --numeric-owner --format=ustar \
		--transform "s,^,$name/," -T "$work/files" -cf - | gzip -9n >"$out/$name.tar.gz"
	rm "$doc/LICENSE"
}

debian() {
	put 644 conf/gantry.toml etc/gantry/gantry.toml
	put 644 packaging/debian/copyright usr/share/doc/gantry/copyright
	put 644 packaging/debian/lintian-overrides usr/share/lintian/overrides/gantry
	fill packaging/debian/changelog.in | gzip -9n >"$doc/changelog.Debian.gz"
	size=$(find "$tree" -type f -printf '%s\n' | awk '{ s += int(($1 + 1023) / 1024) } END { print s }')
	(cd "$tree" && find etc usr -type f -print0 | sort -z | xargs -0 md5sum) >"$work/md5sums"
	install -d "$tree/DEBIAN"
	install -m 644 "$work/md5sums" packaging/debian/conffiles "$tree/DEBIAN/"
	install -m 755 packaging/debian/postinst packaging/debian/prerm packaging/debian/postrm "$tree/DEBIAN/"
	fill packaging/debian/control.in >"$tree/DEBIAN/control"
	date_all
	dpkg-deb --root-owner-group --threads-max=1 -Zxz "-z${DEB_COMPRESSION:-6}" --build "$tree" "$out/gantry_${deb_version}_$deb_arch.deb" >/dev/null
}

mkdir -p "$out"
out=$(cd "$out" && pwd)
rm -f "$out"/gantry[-_]* "$out/SHA256SUMS"
programs
documents
archive
debian
cp "$work/gantryd.cdx.json" "$out/$name.cdx.json"
(cd "$out" && sha256sum gantry[-_]* >SHA256SUMS && cat SHA256SUMS)
