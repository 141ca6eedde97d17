package kubelet

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gantry-cri/gantry/test/testenv"
)

const nodeName = "node"

// A node is one gantryd and the kubelet on it.
type node struct {
	t      *testing.T
	name   string
	space  *space // nil: the machine's own namespaces
	env    *testenv.Env
	dir    string // of the kubelet
	port   int
	cgroup string // parent of the pods'
	http   *http.Client

	address     string   // that the kubelet listens on
	kubeletArgs []string // more of them
	cmd         *exec.Cmd
	ended       chan struct{} // closed when cmd has ended
}

// start starts a daemon, and a kubelet that runs static pods on it.
func start(t *testing.T, runtime string) *node {
	t.Helper()
	n := newNode(t, runtime, nodeName, nil)
	n.start()
	return n
}

// start starts the kubelet, which ends with the test, and waits until it answers.
func (n *node) start() {
	n.t.Helper()
	n.t.Cleanup(func() {
		n.removePods()
		n.stop()
	})
	n.run()
	n.eventually("the kubelet to answer", func() error {
		_, err := n.get("/pods")
		return err
	})
}

// newNode starts a daemon, and makes all that a kubelet on it needs.
func newNode(t *testing.T, runtime, name string, s *space) *node {
	t.Helper()
	return newNodeOn(t, testenv.Options{Registry: shared.Registry(t), Runtime: runtime}, name, s)
}

// newNodeOn is newNode with other options of the daemon.
func newNodeOn(t *testing.T, o testenv.Options, name string, s *space) *node {
	t.Helper()
	if s != nil {
		s.forward(t, o.Registry.Address)
		o.Enter = s.enter()
	}
	n := &node{
		t:       t,
		name:    name,
		space:   s,
		env:     testenv.Start(t, o),
		port:    freePort(t),
		http:    &http.Client{Timeout: time.Minute, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}, // its certificate is its own
		address: "127.0.0.1",
	}
	n.dir = filepath.Join(n.env.Dir, "kubelet")
	n.cgroup = n.env.CgroupParent + "/kubelet"
	if n.env.CgroupManager == testenv.Systemd {
		n.cgroup = "/kubepods.slice"
	}
	for _, dir := range []string{"manifests", "root", "pki", "logs", "volumes", "plugins"} {
		must(t, os.MkdirAll(filepath.Join(n.dir, dir), 0o755))
	}
	must(t, os.WriteFile(n.path("resolv.conf"), []byte("nameserver 127.0.0.1\n"), 0o644))
	n.makeCgroups()
	t.Cleanup(func() {
		n.env.RemoveCgroup(n.cgroup)
		if t.Failed() {
			t.Logf("the kubelet's complaints:\n%s", n.complaints())
		}
	})
	return n
}

func (n *node) path(name string) string { return filepath.Join(n.dir, name) }

// config is the kubelet's: no API server, no other node component, nothing of
// this machine's but kernel and cgroups.
func (n *node) config() string {
	return fmt.Sprintf(`apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
staticPodPath: %[1]s/manifests
podLogsDir: %[1]s/logs
resolvConf: %[1]s/resolv.conf
volumePluginDir: %[1]s/plugins
containerRuntimeEndpoint: unix://%[2]s
cgroupDriver: %[6]s
cgroupRoot: %[3]s
failCgroupV1: false
oomScoreAdj: 0
address: %[5]s
port: %[4]d
readOnlyPort: 0
healthzPort: 0
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}, x509: {}}
authorization: {mode: AlwaysAllow}
enableControllerAttachDetach: false
makeIPTablesUtilChains: false
fileCheckFrequency: 1s
syncFrequency: 5s
volumeStatsAggPeriod: 5s
imageMinimumGCAge: 1s
imageMaximumGCAge: 20s
nodeLeaseDurationSeconds: 8
nodeStatusUpdateFrequency: 3s
containerLogMaxSize: 64Ki
containerLogMaxFiles: 3
containerLogMonitorInterval: 3s
shutdownGracePeriod: 0s
failSwapOn: false
memorySwap: {swapBehavior: %[7]s}
evictionHard: {memory.available: 1Mi, nodefs.available: 0.1%%, nodefs.inodesFree: 0.1%%, imagefs.available: 0.1%%, imagefs.inodesFree: 0.1%%}
crashLoopBackOff: {maxContainerRestartPeriod: 2s}
featureGates: {PodAndContainerStatsFromCRI: true, CRIListStreaming: true, KubeletCrashLoopBackOffMax: true}
`, n.dir, n.env.Socket, n.cgroupRoot(), n.port, n.address, n.env.CgroupManager, swapBehavior())
}

// swapBehavior is what pods get of swap. On cgroup v1 the kubelet knows one answer.
func swapBehavior() string {
	if onCgroupV1() {
		return "NoSwap"
	}
	return "LimitedSwap"
}

// cgroupRoot is where the kubelet is to make its cgroups: with systemd where it
// does on users' nodes, in kubepods.slice.
func (n *node) cgroupRoot() string {
	if n.env.CgroupManager == testenv.Systemd {
		return "/"
	}
	return n.cgroup
}

// makeCgroups makes the parent of the pods' cgroups, which the kubelet expects
// to be there, unless they are slices.
func (n *node) makeCgroups() {
	n.t.Helper()
	if n.env.CgroupManager == testenv.Systemd {
		return
	}
	roots := []string{"/sys/fs/cgroup"}
	if !testenv.CgroupV2() {
		var err error
		roots, err = filepath.Glob("/sys/fs/cgroup/*")
		must(n.t, err)
	}
	for _, root := range roots {
		top := root + n.cgroup
		must(n.t, os.MkdirAll(top, 0o755))
		if filepath.Base(root) == "cpuset" {
			copyFile(n.t, root+"/cpuset.cpus", root+n.env.CgroupParent+"/cpuset.cpus", top+"/cpuset.cpus")
			copyFile(n.t, root+"/cpuset.mems", root+n.env.CgroupParent+"/cpuset.mems", top+"/cpuset.mems")
		}
	}
}

func copyFile(t *testing.T, from string, to ...string) {
	t.Helper()
	data, err := os.ReadFile(from)
	must(t, err)
	for _, file := range to {
		must(t, os.WriteFile(file, data, 0o644))
	}
}

// run starts the kubelet.
func (n *node) run() {
	n.t.Helper()
	must(n.t, os.WriteFile(n.path("config.yaml"), []byte(n.config()), 0o644))
	log, err := os.OpenFile(n.path("log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	must(n.t, err)
	defer log.Close()
	n.cmd = n.command(testenv.Binary(n.t, "kubelet"), append([]string{"--config=" + n.path("config.yaml"), "--root-dir=" + n.path("root"),
		"--cert-dir=" + n.path("pki"), "--hostname-override=" + n.name, "--v=2"}, n.kubeletArgs...)...)
	n.cmd.Stdout, n.cmd.Stderr = log, log
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	must(n.t, n.cmd.Start())
	n.ended = make(chan struct{})
	go func() {
		n.cmd.Wait() //nolint:errcheck // it is killed
		close(n.ended)
	}()
}

// command is a program of the node, in its namespaces.
func (n *node) command(program string, args ...string) *exec.Cmd {
	if n.space == nil {
		return exec.Command(program, args...)
	}
	line := slices.Concat(n.space.enter(), []string{program}, args)
	return exec.Command(line[0], line[1:]...)
}

// stop ends the kubelet; its pods go on.
func (n *node) stop() {
	n.t.Helper()
	_ = n.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-n.ended:
	case <-time.After(20 * time.Second):
		n.t.Error("the kubelet does not end")
		_ = n.cmd.Process.Kill()
		<-n.ended
	}
}

// complaints are the last errors of the kubelet's log.
func (n *node) complaints() string {
	data, err := os.ReadFile(n.path("log"))
	if err != nil {
		return err.Error()
	}
	var lines []string
	for line := range strings.Lines(string(data)) {
		if line[0] == 'E' || line[0] == 'F' || strings.Contains(line, "level=fatal") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines[max(0, len(lines)-40):], "")
}

// get asks the kubelet's API.
func (n *node) get(path string) (string, error) {
	resp, err := n.http.Get(fmt.Sprintf("https://%s:%d%s", n.address, n.port, path))
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", path, resp.Status, body)
	}
	return string(body), err
}

// add gives the kubelet a static pod. spec is YAML, indented by two.
func (n *node) add(t *testing.T, name, spec string) {
	t.Helper()
	manifest := fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata:\n  name: %s\n  namespace: default\n  labels: {app: %s}\nspec:\n%s", name, name, spec)
	file := n.path("manifests/" + name + ".yaml")
	// The kubelet reads what it finds: it must not find half of it.
	must(t, os.WriteFile(n.path(name+".tmp"), []byte(manifest), 0o644))
	must(t, os.Rename(n.path(name+".tmp"), file))
}

// remove takes the pod away and waits until its containers have ended.
func (n *node) remove(t *testing.T, name string) {
	t.Helper()
	must(t, os.Remove(n.path("manifests/"+name+".yaml")))
	n.wait(t, "pod "+name+" to end", func() error { return n.noSandbox(name+"-"+nodeName, true) })
}

// removePods takes all pods away and waits until neither the runtime nor the
// kubelet has anything left of them.
func (n *node) removePods() {
	files, err := filepath.Glob(n.path("manifests/*.yaml"))
	must(n.t, err)
	for _, file := range files {
		must(n.t, os.Remove(file))
	}
	n.eventually("the pods to go", func() error {
		if err := n.noSandbox("", false); err != nil {
			return err
		}
		dirs, err := filepath.Glob(n.path("root/pods/*"))
		if err == nil && len(dirs) > 0 {
			err = fmt.Errorf("left: %v", dirs)
		}
		return err
	})
}

// pods asks the kubelet what it knows.
func (n *node) pods() ([]pod, error) {
	body, err := n.get("/pods")
	if err != nil {
		return nil, err
	}
	var list struct{ Items []pod }
	return list.Items, json.Unmarshal([]byte(body), &list)
}

func (n *node) find(name string) (*pod, error) {
	list, err := n.pods()
	if err != nil {
		return nil, err
	}
	for i := range list {
		if list[i].Metadata.Name == name+"-"+nodeName {
			return &list[i], nil
		}
	}
	return nil, fmt.Errorf("the kubelet knows no pod %s", name)
}

// until waits for a pod to be as check wants it, and returns it.
func (n *node) until(t *testing.T, name, what string, check func(*pod) error) *pod {
	t.Helper()
	var found *pod
	n.wait(t, "pod "+name+" to be "+what, func() error {
		p, err := n.find(name)
		if err != nil {
			return err
		}
		if err := check(p); err != nil {
			state, _ := json.Marshal(p.Status)
			return fmt.Errorf("%w; it is %s", err, state)
		}
		found = p
		return nil
	})
	return found
}

// untilReady waits until all containers of a pod are ready.
func (n *node) untilReady(t *testing.T, name string) *pod {
	t.Helper()
	return n.until(t, name, "ready", func(p *pod) error {
		if p.condition("Ready") != "True" {
			return fmt.Errorf("it is not ready")
		}
		return nil
	})
}

// untilPhase waits for the phase of a pod.
func (n *node) untilPhase(t *testing.T, name, phase string) *pod {
	t.Helper()
	return n.until(t, name, phase, func(p *pod) error {
		if p.Status.Phase != phase {
			return fmt.Errorf("the phase is %s", p.Status.Phase)
		}
		return nil
	})
}

func (n *node) eventually(what string, check func() error) {
	n.t.Helper()
	n.wait(n.t, what, check)
}

// wait calls check until it returns nil, for three minutes.
func (n *node) wait(t *testing.T, what string, check func() error) {
	t.Helper()
	deadline := time.Now().Add(3 * time.Minute)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited three minutes for %s: %v", what, err)
		}
		select {
		case <-n.ended:
			t.Fatalf("the kubelet has ended while a test waits for %s: %v\n%s", what, err, n.complaints())
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// log reads what a container wrote, from the kubelet.
func (n *node) log(name, container, query string) (string, error) {
	return n.get(fmt.Sprintf("/containerLogs/default/%s-%s/%s?%s", name, nodeName, container, query))
}

// untilLog waits until a container has written text.
func (n *node) untilLog(t *testing.T, name, container, text string) string {
	t.Helper()
	var got string
	n.wait(t, fmt.Sprintf("%q of %s in %s", text, container, name), func() error {
		var err error
		if got, err = n.log(name, container, ""); err == nil && !strings.Contains(got, text) {
			err = fmt.Errorf("it wrote %q", got)
		}
		return err
	})
	return got
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}
