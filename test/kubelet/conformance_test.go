package kubelet

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-cri/gantry/test/critest"
	"github.com/gantry-cri/gantry/test/images"
	"github.com/gantry-cri/gantry/test/testenv"
)

// TestNodeConformance runs Kubernetes' own tests of a node, those that it calls
// node conformance, and fails for each spec that fails. The suite brings an API
// server and starts the kubelet itself.
func TestNodeConformance(t *testing.T) {
	skips, err := critest.ReadSkips("skip.txt")
	must(t, err)
	set := &testenv.Images{Sets: []images.Set{images.Conformance}}
	t.Cleanup(set.Stop)
	for _, runtime := range testenv.Runtimes() {
		t.Run(runtime, func(t *testing.T) {
			n := newNodeOn(t, testenv.Options{
				Registry: set.Registry(t),
				Runtime:  runtime,
				Config:   fmt.Sprintf("[runtimes.test-handler]\npath = %q\n", testenv.Program(t, runtime)), // a RuntimeClass of the suite's
			}, nodeName, nil)
			n.lendPlaces()
			must(t, os.Symlink("suite/reports/kubelet.log", n.path("log")))
			dropIns := n.path("suite/kubelet.conf.d")
			must(t, os.MkdirAll(dropIns, 0o755))
			must(t, os.WriteFile(filepath.Join(dropIns, "gantry.conf"), []byte(n.suiteConfig()), 0o644))
			specs := n.runSuite(skips)
			n.clear()
			critest.Judge(t, skips, specs)
			for _, skip := range skips {
				if !slices.ContainsFunc(specs, func(s critest.Spec) bool { return skip.Pattern.MatchString(s.Name) }) {
					t.Errorf("the skip list's %q (%s) matches no spec", skip.Pattern, skip.Reason)
				}
			}
		})
	}
}

// clear removes what the kubelet, which the suite kills at its end, leaves
// behind: the last pods, and their volumes.
func (n *node) clear() {
	n.t.Helper()
	n.env.RemoveAll()
	n.env.RemoveCgroup("/kubepods")
	mounts, err := os.ReadFile("/proc/self/mounts")
	must(n.t, err)
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); strings.HasPrefix(f[1], "/var/lib/kubelet/") {
			must(n.t, unix.Unmount(f[1], unix.MNT_DETACH))
		}
	}
}

// suiteConfig is what the kubelet that the suite configures is to have besides.
// The specs expect the pods' cgroups at the top.
func (n *node) suiteConfig() string {
	return fmt.Sprintf(`apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
resolvConf: %[1]s/resolv.conf
volumePluginDir: %[1]s/plugins
cgroupDriver: cgroupfs
cgroupRoot: /
kubeletCgroups: ""
systemCgroups: ""
failCgroupV1: false
failSwapOn: false
oomScoreAdj: 0
makeIPTablesUtilChains: false
featureGates: {PodAndContainerStatsFromCRI: true}
evictionHard: {memory.available: 1Mi, nodefs.available: 0.1%%, nodefs.inodesFree: 0.1%%, imagefs.available: 0.1%%, imagefs.inodesFree: 0.1%%}
imageGCHighThresholdPercent: 100
`, n.dir)
}

// lendPlaces puts directories of the test's where the suite expects the node's
// own, and hides a program with which it would ask systemd for a unit.
func (n *node) lendPlaces() {
	n.t.Helper()
	for place, own := range map[string]string{
		"/var/lib/kubelet":    n.path("root"),
		"/var/log/pods":       n.path("logs"),
		"/var/log/containers": n.path("containers"),
	} {
		if os.Mkdir(place, 0o755) == nil {
			n.t.Cleanup(func() { _ = os.Remove(place) })
		}
		must(n.t, os.MkdirAll(own, 0o755))
		n.bind(own, place)
	}
	if program, err := exec.LookPath("systemd-run"); err == nil {
		n.bind(os.DevNull, program)
	}
}

func (n *node) bind(what, place string) {
	n.t.Helper()
	must(n.t, unix.Mount(what, place, "", unix.MS_BIND, ""))
	n.t.Cleanup(func() { _ = unix.Unmount(place, unix.MNT_DETACH) })
}

// runSuite runs the specs, some at a time: most of their time they sleep.
func (n *node) runSuite(skips []critest.Skip) []critest.Spec {
	n.t.Helper()
	report := n.path("suite/report.json")
	args := []string{"--procs=10", "--no-color", "--timeout=2h", "--json-report=" + report, "--label-filter=!Serial && !Slow && !Flaky && !Disruptive && Feature: isEmpty && !(Alpha || Beta && BetaOffByDefault)"}
	focus := `\[NodeConformance\]`
	if more := os.Getenv("CONFORMANCE_FOCUS"); more != "" {
		focus = more
	}
	args = append(args, "--focus="+focus)
	for _, skip := range skips {
		args = append(args, "--skip="+skip.Pattern.String())
	}
	root, err := testenv.Root()
	must(n.t, err)
	// It works where it lies, and looks there for the kubelet.
	for _, name := range []string{"e2e_node.test", "kubelet"} {
		must(n.t, os.Symlink(testenv.Binary(n.t, name), n.path("suite/"+name)))
	}
	args = append(args, "e2e_node.test", "--",
		"--container-runtime-endpoint=unix://"+n.env.Socket,
		"--prepull-images=false", "--report-dir="+n.path("suite/reports"),
		"--system-spec-file="+filepath.Join(root, "test/kubelet/system.yaml"))
	cmd := exec.Command(testenv.Binary(n.t, "ginkgo-kubernetes"), args...)
	cmd.Dir = n.path("suite")
	out := critest.Output(n.t)
	cmd.Stdout, cmd.Stderr = out, out
	start := time.Now()
	err = cmd.Run()
	n.t.Logf("the suite ran for %s", time.Since(start).Round(time.Second))
	specs, readErr := critest.ReadReport(report)
	if readErr != nil {
		n.t.Fatalf("%v: %v", err, readErr)
	}
	return specs
}
