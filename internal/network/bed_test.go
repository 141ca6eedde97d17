package network

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gantry-cri/gantry/internal/id"
)

// bed is a place of its own for a Manager: directories, a bridge name, subnets.
// When the test ends it is checked for leaks.
type bed struct {
	t       testing.TB
	dir     string
	opts    Options
	network string // the network's name, and the bridge's
	v4, v6  string // subnets: v4+".0/24", v6+"::/64"
}

// realPlugins is where the plugins under test are.
func realPlugins() string {
	if dir := os.Getenv("GANTRY_TEST_CNI_BIN_DIR"); dir != "" {
		return dir
	}
	return "/usr/lib/cni"
}

func newBed(t testing.TB) *bed {
	t.Helper()
	dir := t.TempDir()
	var r [3]byte
	rand.Read(r[:])
	b := &bed{
		t:       t,
		dir:     dir,
		network: fmt.Sprintf("gtnet%x", r),
		v4:      fmt.Sprintf("10.%d.%d", 224+r[0]%31, r[1]),
		v6:      fmt.Sprintf("fd00:6774:%02x:%02x%02x", r[0], r[1], r[2]),
	}
	b.opts = Options{
		Settings: Settings{
			ConfDir: filepath.Join(dir, "net.d"),
			BinDirs: []string{filepath.Join(dir, "bin"), realPlugins()},
			Timeout: 30 * time.Second,
		},
		StateDir: filepath.Join(dir, "state"),
		Log:      slog.New(slog.NewTextHandler(logWriter{t}, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	for _, d := range []string{b.opts.ConfDir, filepath.Join(dir, "bin"), filepath.Join(dir, "netns")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(b.checkLeaks)
	return b
}

type logWriter struct{ t testing.TB }

func (w logWriter) Write(p []byte) (int, error) {
	w.t.Logf("%s", bytes.TrimSpace(p))
	return len(p), nil
}

// manager starts a Manager that ends with the test, if not before.
func (b *bed) manager() *Manager {
	b.t.Helper()
	m, err := New(b.opts)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		if m.ctx.Err() == nil {
			b.close(m)
		}
	})
	return m
}

func (b *bed) close(m *Manager) {
	b.t.Helper()
	if err := m.Close(); err != nil {
		b.t.Error(err)
	}
}

// conf writes a configuration file; body nil removes it.
func (b *bed) conf(name string, body any) {
	b.t.Helper()
	path := filepath.Join(b.opts.ConfDir, name)
	if body == nil {
		if err := os.Remove(path); err != nil {
			b.t.Fatal(err)
		}
		return
	}
	text, ok := body.(string)
	if !ok {
		js, err := json.Marshal(body)
		if err != nil {
			b.t.Fatal(err)
		}
		text = string(js)
	}
	b.write(path, text, 0o644)
}

// write replaces a file at once, as a careful installer does.
func (b *bed) write(path, text string, mode os.FileMode) {
	b.t.Helper()
	tmp := path + ".new"
	if err := os.WriteFile(tmp, []byte(text), mode); err != nil {
		b.t.Fatal(err)
	}
	if err := os.Rename(tmp, path); err != nil {
		b.t.Fatal(err)
	}
}

type object = map[string]any

// bridge is a list of the real bridge, host-local and portmap plugins.
func (b *bed) bridge(v6 bool) object {
	ranges := []any{[]any{object{"subnet": b.v4 + ".0/24"}}}
	routes := []any{object{"dst": "0.0.0.0/0"}}
	if v6 {
		routes = append(routes, object{"dst": "::/0"})
		ranges = append(ranges, []any{object{"subnet": b.v6 + "::/64"}})
	}
	version := os.Getenv("GANTRY_TEST_CNI_VERSION")
	if version == "" {
		version = "1.0.0" // the newest that Debian's plugins know
	}
	return object{
		"cniVersion": version,
		"name":       b.network,
		"plugins": []any{
			object{
				"type": "bridge", "bridge": b.network, "isGateway": true, "ipMasq": true, "hairpinMode": true,
				"ipam": object{"type": "host-local", "dataDir": filepath.Join(b.dir, "leases"), "ranges": ranges, "routes": routes},
			},
			object{"type": "portmap", "capabilities": object{"portMappings": true}, "snat": true},
		},
	}
}

// pod makes a pod with a namespace.
func (b *bed) pod() Pod {
	b.t.Helper()
	pod := Pod{ID: id.NewPod(), Name: "web", Namespace: "default", UID: "u-1"}
	pod.NetNS = filepath.Join(b.dir, "netns", string(pod.ID))
	if err := CreateNetNS(pod.NetNS); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		if err := RemoveNetNS(pod.NetNS); err != nil {
			b.t.Error(err)
		}
	})
	return pod
}

func (b *bed) add(m *Manager, pod Pod) Result {
	b.t.Helper()
	result, err := m.Add(context.Background(), pod)
	if err != nil {
		b.t.Fatal(err)
	}
	return result
}

func (b *bed) del(m *Manager, pod Pod) {
	b.t.Helper()
	if err := m.Del(context.Background(), pod.ID); err != nil {
		b.t.Fatal(err)
	}
}

// checkLeaks fails the test if anything of its pods is left. It runs after
// every other clean-up.
func (b *bed) checkLeaks() {
	b.t.Helper()
	if ports := b.command("ip", "-o", "link", "show", "type", "bridge_slave"); strings.Contains(ports, "master "+b.network+" ") {
		b.t.Errorf("leak: interfaces on the bridge:\n%s", ports)
	}
	if strings.Contains(b.command("ip", "-o", "link", "show", "type", "bridge"), ": "+b.network+":") {
		b.command("ip", "link", "del", b.network)
	}
	for _, save := range []string{"iptables-save", "ip6tables-save"} {
		for line := range strings.Lines(b.command(save)) {
			if strings.Contains(line, b.network) || strings.Contains(line, b.v4+".") || strings.Contains(line, b.v6+":") {
				b.t.Errorf("leak: %s: %s", save, line)
			}
		}
	}
	leases, _ := filepath.Glob(filepath.Join(b.dir, "leases", "*", "[0-9a-f]*[.:]*"))
	records, _ := filepath.Glob(filepath.Join(b.opts.StateDir, "attachments", "*"))
	cached, _ := filepath.Glob(filepath.Join(b.opts.StateDir, "cache", "results", "*"))
	for _, file := range append(append(leases, records...), cached...) {
		b.t.Errorf("leak: %s", file)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(mounts), b.dir) {
		b.t.Errorf("leak: mounts below %s: %v", b.dir, err)
	}
	if pids := processesWith(b.dir); len(pids) > 0 {
		b.t.Errorf("leak: processes %v", pids)
	}
}

func (b *bed) command(name string, args ...string) string {
	b.t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		b.t.Errorf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// processesWith are the processes with word on their command line or in their
// environment.
func processesWith(word string) []string {
	var out []string
	for _, what := range []string{"cmdline", "environ"} {
		files, _ := filepath.Glob("/proc/[0-9]*/" + what)
		for _, file := range files {
			pid := filepath.Base(filepath.Dir(file))
			if body, err := os.ReadFile(file); err == nil && bytes.Contains(body, []byte(word)) && pid != fmt.Sprint(os.Getpid()) {
				out = append(out, pid)
			}
		}
	}
	return out
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

// serve answers TCP connections in the pod with word.
func (b *bed) serve(pod Pod, port int, word string) {
	b.t.Helper()
	var l net.Listener
	err := insideNetNS(pod.NetNS, func() (err error) {
		l, err = net.Listen("tcp", fmt.Sprintf(":%d", port))
		return err
	})
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(c, word)
			c.Close()
		}
	}()
}

// dial returns what a TCP server says.
func dial(addr string) (string, error) {
	c, err := net.DialTimeout("tcp", addr, 3*time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(3 * time.Second)); err != nil {
		return "", err
	}
	var said bytes.Buffer
	_, err = said.ReadFrom(c)
	return said.String(), err
}

// fake installs a plugin "fake" whose ADD gives 10.0.0.9, and returns its
// directory. There, files change what it does:
//
//	fail.COMMAND   print the file and exit 1
//	hang.COMMAND   never end, with a child in the group and one outside it
//
// and it leaves calls (one line each) and stdin.COMMAND (the last).
func (b *bed) fake() string {
	b.t.Helper()
	dir := filepath.Join(b.dir, "fake")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		b.t.Fatal(err)
	}
	b.write(filepath.Join(b.dir, "bin", "fake"), `#!/bin/sh
cd `+dir+`
cat > stdin.$CNI_COMMAND
echo "$CNI_COMMAND $CNI_CONTAINERID $CNI_IFNAME $CNI_NETNS $CNI_ARGS" >> calls
if [ -e hang.$CNI_COMMAND ]; then
	sleep 1000 &
	setsid sleep 1000 &
	wait
fi
if [ -e fail.$CNI_COMMAND ]; then
	cat fail.$CNI_COMMAND
	exit 1
fi
if [ $CNI_COMMAND = ADD ]; then
	cat <<E
{"cniVersion":"1.0.0",
 "interfaces":[{"name":"br0"},{"name":"eth0","sandbox":"$CNI_NETNS"},{"name":"other","sandbox":"$CNI_NETNS"}],
 "ips":[{"interface":0,"address":"10.0.0.1/24"},{"interface":1,"address":"10.0.0.9/24"},{"interface":2,"address":"10.0.1.9/24"}]}
E
fi
`, 0o755)
	return dir
}

func (b *bed) fakeConf(version string, capabilities ...string) object {
	caps := object{}
	for _, c := range capabilities {
		caps[c] = true
	}
	return object{"cniVersion": version, "name": b.network, "plugins": []any{object{"type": "fake", "capabilities": caps}}}
}

// calls are the commands that the fake plugin got for the pod, "VERSION" apart.
func (b *bed) calls(pod id.Pod) string {
	b.t.Helper()
	body, err := os.ReadFile(filepath.Join(b.dir, "fake", "calls"))
	if err != nil && !os.IsNotExist(err) {
		b.t.Fatal(err)
	}
	var out []string
	for line := range strings.Lines(string(body)) {
		if f := strings.Fields(line); len(f) > 1 && f[1] == string(pod) {
			out = append(out, f[0])
		}
	}
	return strings.Join(out, " ")
}
