#!/bin/sh
# Runs tests in the virtual machine:
#
#   test.sh PACKAGE:REGEXP...    e.g. ./test/integration:AppArmor
#
# Needs `make build tools`, and bin/kubelet for ./test/kubelet; for its TestCluster
# and TestSwap the programs of the control plane too. The variables
# GANTRY_TEST_... are those that the tests get there.
set -eu

cd "$(dirname "$0")/../.."
test/vm/image.sh .cache/vm
files=.cache/vm/files
rm -rf "$files"
mkdir -p "$files/src/.cache" "$files/src/bin"
cp go.mod "$files/src/"
cp -r conf "$files/src/"
mkdir "$files/src/.cache/images"
cp bin/gantryd bin/crictl "$files/src/bin/"
# Large ones come along only for those who use them.
case " $* " in *" ./test/critest:"*) cp bin/critest bin/ginkgo "$files/src/bin/" ;; esac
case " $* " in *" ./test/integration:"*) cp bin/runsc "$files/src/bin/" ;; esac
case " $* " in *" ./test/kubelet:"*) cp bin/kubelet "$files/src/bin/" ;; esac
case " $* " in *" ./test/kubelet:TestCluster"* | *" ./test/kubelet:TestSwap"*) cp bin/kube-* bin/kubectl "$files/src/bin/" ;; esac
go build -trimpath -tags "${TAGS:?}" -ldflags '-s -w' -o bin/testimages ./test/images/testimages
for set in demo critest; do
	bin/testimages .cache/images $set >/dev/null
	cp -r .cache/images/$set-* "$files/src/.cache/images/"
done
cp test/vm/inside.sh "$files/"

# What says how the tests run, they are told in the machine too.
env | grep '^GANTRY_TEST_' | sed "s/^/export /; s/=\\(.*\\)/='\\1'/" >"$files/run"
echo 'failed=' >>"$files/run"
for want in "$@"; do
	package=${want%%:*}
	regexp=${want#*:}
	dir=src/${package#./}
	mkdir -p "$files/$dir"
	cp -r "$package"/. "$files/$dir/"
	go test -c -trimpath -tags "${TAGS:?}" -ldflags '-s -w' -o "$files/$dir/vm.test" "$package"
	cat >>"$files/run" <<RUN
echo "vm: $package $regexp"
cd /gantry/$dir
./vm.test -test.v -test.timeout 4h -test.run '$regexp' || failed="\$failed $package"
RUN
done
echo '[ -z "$failed" ]' >>"$files/run"
exec test/vm/run.sh .cache/vm "$files"
