# Gantry. Every target may be run again at any time.
#
#   make build   bin/gantryd, one static binary
#   make demo    a pod from end to end, with crictl, on private roots (root)
#   make run     gantryd in the foreground with real registries (root)
#   make test    all tests (root; half an hour)
#   make test-kubelet  Kubernetes' own kubelet on gantryd, with static pods (root)
#   make test-cluster  a control plane besides, with kubectl, and three nodes (root)
#   make conformance  Kubernetes' own specs of node conformance, an hour for each runtime (root)
#   make cluster [NODES=3]  Kubernetes on gantryd, until it is interrupted (root)
#   make soak    the crash tests whole: hours (root)
#   make test-vm what needs systemd, AppArmor or SELinux, in a virtual machine (root)
#   make test-vm-critest, make test-vm-reboot   more of it: see test/README.md (root)
#   make package the .deb, the tar.gz and the list of components, in build/package
#   make package-test   install, upgrade, remove and purge the .deb, in a copy of / (root)
#   make package-check  are two builds of the packages the same, byte by byte?
#   make lint    gofmt, go vet, staticcheck
#   make bench   figures beside Debian's containerd (root)
#   make bench-kubelet  what the kubelet measures on gantryd and on containerd (root)
#   make fuzz    every fuzz target for FUZZTIME each
#   make clean   what was built, and what interrupted tests left behind

SHELL := /bin/sh
.DELETE_ON_ERROR:
.PHONY: all build programs tools install demo run test unit c-test integration critest vm test-vm lint bench fuzz clean

TAGS    := containers_image_openpgp exclude_graphdriver_btrfs
VERSION := $(shell cat VERSION 2>/dev/null || echo 0.1.0-dev)
COMMIT  := $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT)
# cri-tools v1.36.0 is pinned in test/tools/go.mod.
TOOLS_LDFLAGS := -s -w -X sigs.k8s.io/cri-tools/pkg/version.Version=1.36.0
FUZZTIME ?= 30s

export CGO_ENABLED := 0
# No stamp of the repository's state: -trimpath and this make builds repeatable.
export GOFLAGS := -buildvcs=false
# An empty environment has no home; Go needs a place for its caches.
ifeq ($(HOME),)
export HOME := $(shell getent passwd $$(id -u) | cut -d: -f6)
endif
# Tools of the administrator, and Go where its installer puts it.
export PATH := $(PATH):/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

GO_TEST := go test -tags "$(TAGS)"

all: build

build: bin/gantryd

# The C programs' own makefiles know when there is nothing to do; so does go build.
programs:
	@$(MAKE) --no-print-directory -C monitor OUT=$(CURDIR)/internal/programs/gantry-monitor
	@$(MAKE) --no-print-directory -C pause OUT=$(CURDIR)/internal/programs/pause
	@$(MAKE) --no-print-directory -C execwait OUT=$(CURDIR)/internal/programs/execwait
	@$(MAKE) --no-print-directory -C standin OUT=$(CURDIR)/internal/programs/standin

.PHONY: bin/gantryd
bin/gantryd: programs
	go build -trimpath -tags "$(TAGS)" -ldflags "$(LDFLAGS)" -o $@ ./cmd/daemon

# The tests' programs, from their own module.
tools: bin/crictl bin/critest bin/ginkgo bin/runsc

TOOLS := test/tools/go.mod test/tools/go.sum
bin/crictl: $(TOOLS)
	cd test/tools && go build -trimpath -ldflags "$(TOOLS_LDFLAGS)" -o $(CURDIR)/$@ sigs.k8s.io/cri-tools/cmd/crictl
	@touch $@

bin/critest: $(TOOLS)
	cd test/tools && go test -c -trimpath -ldflags "$(TOOLS_LDFLAGS)" -o $(CURDIR)/$@ sigs.k8s.io/cri-tools/cmd/critest
	@touch $@

bin/ginkgo: $(TOOLS)
	cd test/tools && go build -trimpath -ldflags "-s -w" -o $(CURDIR)/$@ github.com/onsi/ginkgo/v2/ginkgo
	@touch $@

# gVisor's runtime, from a module of its own: two minutes when nothing is cached.
bin/runsc: test/runsc/go.mod test/runsc/go.sum
	cd test/runsc && go build -trimpath -ldflags "-s -w" -o $(CURDIR)/$@ gvisor.dev/gvisor/runsc
	@touch $@

# Kubernetes' own programs, from a module of their own: ten minutes when nothing
# is cached, for the kubelet alone, and as long again for the others.
KUBERNETES := v1.37.2
kube_version := k8s.io/component-base/version
KUBERNETES_LDFLAGS := -s -w -X $(kube_version).gitVersion=$(KUBERNETES) -X $(kube_version).gitMajor=1 -X $(kube_version).gitMinor=37 -X k8s.io/client-go/pkg/version.gitVersion=$(KUBERNETES)
# Kubernetes' own specs of a node, the program that they run in pods, and what
# runs some of them at a time.
CONFORMANCE_PROGRAMS := bin/e2e_node.test bin/agnhost bin/ginkgo-kubernetes
bin/e2e_node.test: test/kubernetes/go.mod test/kubernetes/go.sum
	cd test/kubernetes && go test -c -trimpath -ldflags "$(KUBERNETES_LDFLAGS)" -o $(CURDIR)/$@ k8s.io/kubernetes/test/e2e_node
	@touch $@
bin/agnhost: test/kubernetes/go.mod test/kubernetes/go.sum
	cd test/kubernetes && go build -trimpath -ldflags "-s -w" -o $(CURDIR)/$@ k8s.io/kubernetes/test/images/agnhost
	@touch $@
bin/ginkgo-kubernetes: test/kubernetes/go.mod test/kubernetes/go.sum
	cd test/kubernetes && go build -trimpath -ldflags "-s -w" -o $(CURDIR)/$@ github.com/onsi/ginkgo/v2/ginkgo
	@touch $@
KUBERNETES_PROGRAMS := bin/kubelet bin/kube-apiserver bin/kube-controller-manager bin/kube-scheduler bin/kube-proxy bin/kubectl
$(KUBERNETES_PROGRAMS): test/kubernetes/go.mod test/kubernetes/go.sum
	cd test/kubernetes && go build -trimpath -ldflags "$(KUBERNETES_LDFLAGS)" -o $(CURDIR)/$@ k8s.io/kubernetes/cmd/$(notdir $@)
	@touch $@

demo:
	@test/setup/install.sh demo
	@test/setup/node.sh
	@$(MAKE) --no-print-directory build bin/crictl
	@test/demo/demo.sh

run:
	@test/setup/install.sh demo
	@test/setup/node.sh
	@$(MAKE) --no-print-directory build bin/crictl
	@test/demo/run.sh

install:
	@test/setup/install.sh
	@test/setup/node.sh

# Every part runs even when one before it fails; the summary comes last.
test: install
	@test/run.sh programs:'$(MAKE) build' tools:'$(MAKE) tools' c:'$(MAKE) c-test' vet:'$(MAKE) vet' \
		unit:'$(MAKE) unit' integration:'$(MAKE) integration' crash:'$(MAKE) crash' critest:'$(MAKE) critest' \
		kubelet:'GANTRY_TEST_RUNTIMES=crun $(MAKE) kubelet' package:'$(MAKE) package-test' vm:'$(MAKE) vm'

.PHONY: vet
vet: programs
	go vet -tags "$(TAGS)" ./...

# The C programs' tests, under the address and undefined-behaviour sanitizers.
c-test:
	@$(MAKE) --no-print-directory -C monitor check

# Everything but what needs the daemon.
unit: programs
	$(GO_TEST) -timeout 10m $$(go list -tags "$(TAGS)" ./... | grep -v -e /test/integration -e /test/crash -e /test/kubelet -e /test/critest -e /test/bench)

integration: build bin/crictl bin/runsc
	$(GO_TEST) -count=1 -timeout 25m ./test/integration

crash: build bin/crictl
	$(GO_TEST) -count=1 -v -timeout 25m ./test/crash

# Each side effect of each call, ten thousand exits, and ten minutes of 300 pods
# in waves: hours.
soak: build bin/crictl
	GANTRY_TEST_CRASH_POINTS=all GANTRY_TEST_EXITS=10000 GANTRY_TEST_LOAD_PODS=300 GANTRY_TEST_LOAD_TIME=10m $(GO_TEST) -count=1 -v -timeout 12h ./test/crash

.PHONY: kubelet test-kubelet test-cluster cluster conformance bench-kubelet
test-kubelet: install kubelet
	$(GO_TEST) -count=1 -v -timeout 20m -run TestImageGC ./test/kubelet
kubelet: build bin/kubelet
	$(GO_TEST) -count=1 -v -timeout 20m -run TestKubelet ./test/kubelet

# A control plane too: etcd, the API server, the controllers, the scheduler and
# kube-proxy; one node, and three.
test-cluster: install
	@test/setup/install.sh cluster
	@$(MAKE) --no-print-directory build $(KUBERNETES_PROGRAMS)
	$(GO_TEST) -count=1 -v -timeout 30m -run 'TestCluster|TestNodes' ./test/kubelet

# Kubernetes' own specs of node conformance: an hour for each runtime.
conformance: install
	@$(MAKE) --no-print-directory build bin/kubelet $(CONFORMANCE_PROGRAMS)
	$(GO_TEST) -count=1 -v -timeout 170m -run TestNodeConformance ./test/kubelet

# What the kubelet says of pods' starts, and the time that idle ones cost, beside
# Debian's containerd.
bench-kubelet: install
	@test/setup/install.sh cluster
	@$(MAKE) --no-print-directory build $(KUBERNETES_PROGRAMS)
	@for peer in "" containerd; do \
		GANTRY_TEST_RUNTIMES=runc GANTRY_TEST_PEER=$$peer go test -tags "$(TAGS) figures" -count=1 -v -timeout 30m -run TestFigures ./test/kubelet || exit 1; \
	done

cluster:
	@test/setup/install.sh cluster
	@test/setup/node.sh
	@$(MAKE) --no-print-directory build bin/crictl $(KUBERNETES_PROGRAMS)
	@go test -c -tags "$(TAGS) foreground" -o bin/cluster.test ./test/kubelet
	@cd test/kubelet && exec ../../bin/cluster.test -test.run TestForeground -test.timeout 0

critest: build tools
	$(GO_TEST) -count=1 -v -timeout 25m ./test/critest

lint: programs
	@out=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$out" ] || { echo "gofmt would change: $$out"; exit 1; }
	go vet -tags "$(TAGS)" ./...
	go vet -tags "$(TAGS) man" ./cmd/daemon
	cd test/tools && go build -o $(CURDIR)/bin/staticcheck honnef.co/go/tools/cmd/staticcheck
	bin/staticcheck -tags "$(subst $() ,$(comma),$(TAGS))" ./...

comma := ,

# SOURCE_DATE_EPOCH is the time of all files in the packages, in seconds: the
# commit's, or that of a file where there is no repository.
ifndef SOURCE_DATE_EPOCH
SOURCE_DATE_EPOCH := $(shell git log -1 --format=%ct 2>/dev/null || stat -c %Y Makefile)
endif
export SOURCE_DATE_EPOCH

.PHONY: package package-check package-test bin/gantryd-man
package: build bin/gantryd-man bin/cyclonedx-gomod
	VERSION="$(VERSION)" COMMIT="$(COMMIT)" packaging/build.sh build/package

package-test: package
	packaging/test.sh build/package/*.deb

package-check:
	SOURCE_DATE_EPOCH=$(SOURCE_DATE_EPOCH) VERSION="$(VERSION)" COMMIT="$(COMMIT)" packaging/reproducible.sh

# Writes the manual pages; not installed.
bin/gantryd-man: programs
	go build -trimpath -tags "$(TAGS) man" -ldflags "$(LDFLAGS)" -o $@ ./cmd/daemon

bin/cyclonedx-gomod: packaging/tools/go.mod packaging/tools/go.sum
	cd packaging/tools && go build -trimpath -ldflags "-s -w" -o $(CURDIR)/$@ github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod
	@touch $@

# A pattern's | is no pipe.
quoted = $(foreach word,$(1),'$(word)')

# In a virtual machine with systemd, cgroup v2 and AppArmor, and in one with
# SELinux: what machines without them can't show. WHAT names other tests, for
# the one with VM_LSM, apparmor or selinux. First of all the package's life there.
WHAT ?= ./internal/cgroup:. ./internal/apparmor:. ./test/integration:AppArmor|Devices|OOM|Resources|Slice|Swap|Update|Stats(CPU|Memory|Processes)|MountPropagation|Privileged ./test/crash:StoppedAndFrozen
# What systemd as the cgroup manager changes.
WHAT_SYSTEMD := ./test/integration:OOM|BusPaused|CgroupParent|Resources|Swap|Update|Stats(CPU|Memory|Processes)
# The part of it that is in make test: with crun and systemd's cgroups.
WHAT_VM := ./internal/cgroup:. ./internal/apparmor:. ./test/integration:AppArmor|OOM|CgroupParent|Devices|Resources|StatsMemory|Swap ./test/crash:StoppedAndFrozen
vm: build tools
	@test/setup/install.sh vm
	GANTRY_TEST_CGROUP_MANAGER=systemd GANTRY_TEST_RUNTIMES=crun VM_TIME=1200 TAGS="$(TAGS)" test/vm/test.sh $(call quoted,$(WHAT_VM))
test-vm: install
	@test/setup/install.sh vm
	@$(MAKE) --no-print-directory build tools
ifeq ($(origin WHAT),file)
	@$(MAKE) --no-print-directory test-vm-package
endif
	TAGS="$(TAGS)" test/vm/test.sh $(call quoted,$(WHAT))
ifeq ($(origin WHAT),file)
	GANTRY_TEST_CGROUP_MANAGER=systemd TAGS="$(TAGS)" test/vm/test.sh $(call quoted,$(WHAT_SYSTEMD))
	VM_LSM=selinux TAGS="$(TAGS)" test/vm/test.sh './test/integration:^TestSELinux$$'
endif

# Gantry's own package, by dpkg, under the real systemd: five minutes and more, emulated.
.PHONY: test-vm-package test-vm-reboot test-vm-critest
test-vm-package: package bin/crictl
	TAGS="$(TAGS)" test/vm/package-test.sh

# Reboots and power cuts of a node with that package: VM_CUTS is how many cuts.
test-vm-reboot: package bin/crictl
	TAGS="$(TAGS)" test/vm/reboot-test.sh

# critest whole, with each cgroup manager and each runtime: half an hour, emulated.
test-vm-critest: install
	@test/setup/install.sh vm
	@$(MAKE) --no-print-directory build tools
	@for manager in cgroupfs systemd; do \
		GANTRY_TEST_CGROUP_MANAGER=$$manager TAGS="$(TAGS)" test/vm/test.sh ./test/critest:TestCritest || failed=yes; \
	done; [ -z "$$failed" ]

bench: install
	@$(MAKE) --no-print-directory build
	go run -tags "$(TAGS)" ./test/bench

# Each fuzz target of each package, and of the monitor's message parser.
fuzz:
	@test/setup/install.sh fuzz
	@$(MAKE) --no-print-directory programs
	@set -e; for package in $$(grep -rl --include='*_test.go' '^func Fuzz' internal test 2>/dev/null | xargs -r -n1 dirname | sort -u); do \
		for target in $$(grep -h '^func Fuzz' $$package/*_test.go | sed 's/func \(Fuzz[A-Za-z0-9_]*\).*/\1/'); do \
			$(GO_TEST) -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) ./$$package; \
		done; \
	done
	@$(MAKE) --no-print-directory -C monitor fuzz FUZZ_SECONDS=$(FUZZTIME:s=)

clean:
	@test/setup/sweep.sh
	-@$(MAKE) --no-print-directory -C monitor clean
	-@$(MAKE) --no-print-directory -C pause clean
	-@$(MAKE) --no-print-directory -C execwait clean
	-@$(MAKE) --no-print-directory -C standin clean
	rm -rf bin build internal/programs/gantry-monitor internal/programs/pause internal/programs/execwait internal/programs/standin
