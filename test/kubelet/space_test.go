package kubelet

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A space is a network and a mount namespace, in which a node is a machine of
// its own. A process holds them.
type space struct {
	holder int // its PID
}

// newSpace makes namespaces that last as long as the test, and longer than what
// is started in them.
func newSpace(t *testing.T) *space {
	t.Helper()
	cmd := exec.Command("unshare", "--net", "--mount", "--propagation", "slave", "sleep", "infinity")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	s := &space{cmd.Process.Pid}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", s.holder))
		if err == nil && string(name) == "sleep\n" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("no namespaces: the process is %q, %v", name, err)
		}
	}
	s.ip(t, "link", "set", "lo", "up")
	s.run(t, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
	return s
}

// enter is a command that executes another one in the namespaces.
func (s *space) enter() []string {
	return []string{"nsenter", "--target", strconv.Itoa(s.holder), "--net", "--mount", "--"}
}

func (s *space) run(t *testing.T, args ...string) {
	t.Helper()
	line := slices.Concat(s.enter(), args)
	command(t, line[0], line[1:]...)
}

func (s *space) ip(t *testing.T, args ...string) {
	t.Helper()
	s.run(t, append([]string{"ip"}, args...)...)
}

func ip(t *testing.T, args ...string) {
	t.Helper()
	command(t, "ip", args...)
}

// command runs a program that must succeed.
func command(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
}

// forward makes a port of the machine's loopback, such as the registry's, a
// port of the namespace's.
func (s *space) forward(t *testing.T, address string) {
	t.Helper()
	l, err := s.listen(address)
	must(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			go relay(in, address)
		}
	}()
}

func relay(in net.Conn, address string) {
	defer in.Close()
	out, err := net.Dial("tcp", address)
	if err != nil {
		return
	}
	defer out.Close()
	go func() {
		_, _ = io.Copy(out, in) // the client's end
		_ = out.(*net.TCPConn).CloseWrite()
	}()
	_, _ = io.Copy(in, out) // one of them has gone
}

// listen makes a listener in the network namespace: a socket stays where it was
// made. The thread comes back: if it ended, processes that it started would be
// killed, as they shall be when this process ends.
func (s *space) listen(address string) (net.Listener, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	back, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, err
	}
	defer back.Close()
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", s.holder))
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", address)
	if backErr := unix.Setns(int(back.Fd()), unix.CLONE_NEWNET); backErr != nil {
		panic(backErr) // or other work of this process would go on in there
	}
	return l, err
}

// ofRange is an address outside of the pods' range, and like it no other
// node's: the last number is the range's first and n.
func (n *node) ofRange(number int) string {
	n.t.Helper()
	second, third := 0, 0
	_, err := fmt.Sscanf(n.env.Subnet, "10.%d.%d.", &second, &third)
	must(n.t, err)
	return fmt.Sprintf("198.18.%d.%d", second, third+number)
}

// connect gives a node an interface, and its network a configuration without
// NAT: the others have a route to its pods.
func (c *cluster) connect(n *node) {
	c.t.Helper()
	outer := n.outer()
	ip(c.t, "link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", strconv.Itoa(n.space.holder))
	ip(c.t, "link", "set", outer, "master", c.bridge, "up")
	n.space.ip(c.t, "link", "set", "eth0", "up")
	n.space.ip(c.t, "address", "add", n.address+"/32", "dev", "eth0")
	n.space.ip(c.t, "route", "add", "default", "via", c.api, "dev", "eth0", "onlink")
	ip(c.t, "route", "add", n.address+"/32", "dev", c.bridge)
	ip(c.t, "route", "add", n.env.Subnet, "via", n.address, "dev", c.bridge, "onlink")
	network := n.env.Network()
	network["plugins"].([]any)[0].(map[string]any)["ipMasq"] = false
	must(c.t, n.env.WriteNetwork(network))
	for _, other := range c.nodes {
		if other != n {
			n.space.ip(c.t, "route", "add", other.ofRange(2)+"/32", "dev", "eth0")
		}
	}
}

// outer is the name of the machine's end of a node's cable.
func (n *node) outer() string { return "v" + n.env.Name }
