package testenv

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Options say how an environment differs from the usual one.
type Options struct {
	Runtime   string            // crun (also when empty) or runc: the default handler
	Runtimes  map[string]string // more handlers: name to path
	Registry  *Registry         // nil: registries.conf points to a port where nobody listens
	Config    string            // more TOML for gantry.toml, before the tables
	PluginDir string            // searched for CNI plugins before the installed ones
	Environ   []string          // more of the daemon's environment: NAME=value
	NoNetwork bool              // start without any CNI configuration
	// CgroupManager is Cgroupfs or Systemd; empty is what CgroupManager() says.
	CgroupManager string
	Enter         []string // a command that executes the daemon elsewhere, such as nsenter with its arguments
	// Mount mounts what directories of the environment are to be on, before the
	// daemon starts. The environment unmounts it.
	Mount func(*Env) error
}

// An Env is one gantryd and what it works on. It ends with its test.
type Env struct {
	Name          string // unique on the machine; also of the CNI network
	Dir           string
	Socket        string
	Root          string
	RunRoot       string
	LogDir        string // for the log directories of pods
	CNIConfDir    string
	CgroupParent  string // where pods go that name no cgroup parent: a path in the hierarchy
	CgroupManager string // Cgroupfs or Systemd
	Bridge        string
	Subnet        string
	RuntimeName   string

	Runtime runtimeapi.RuntimeServiceClient
	Images  runtimeapi.ImageServiceClient

	t         testing.TB
	registry  string
	pluginDir []string
	environ   []string
	enter     []string
	conn      *grpc.ClientConn
	daemon    *daemon
	disks     []string // mounted by Options.Mount
	before    state
	inside    insides // of the first daemon when it was new

	mu   sync.Mutex // guards pods
	pods []string   // the id of every pod that was ever run
}

// Start writes a configuration, starts the daemon and waits until it answers.
// Everything goes away when the test ends, after the check for leaks.
func Start(t testing.TB, o Options) *Env {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test needs root: it makes namespaces, mounts and cgroups")
	}
	e, err := newEnv(t, o)
	if err != nil {
		t.Fatalf("prepare a test environment: %v", err)
	}
	t.Cleanup(e.finish)
	if err := e.writeConfig(o); err != nil {
		t.Fatalf("write the configuration: %v", err)
	}
	if o.Mount != nil {
		if err := o.Mount(e); err != nil {
			t.Fatalf("mount: %v", err)
		}
		e.disks = e.mounts()
	}
	e.StartDaemon()
	e.before = e.state()
	if !Peer() {
		if e.inside, err = e.insides(); err != nil {
			t.Fatalf("look into the daemon: %v", err)
		}
	}
	return e
}

// newDir makes a directory that test/setup/sweep.sh removes, with all that goes
// on in it, when this process is gone.
func newDir(kind string) (string, error) {
	dir, err := os.MkdirTemp("", "gantry-env-"+kind)
	if err != nil {
		return "", err
	}
	owner := []byte(strconv.Itoa(os.Getpid()))
	if err := os.WriteFile(dir+"/owner", owner, 0o644); err != nil {
		return "", err
	}
	return dir, os.Chmod(dir, 0o755) // users of containers pass through it
}

// subnets counts those given out, from somewhere.
var subnets atomic.Uint32

func init() {
	var b [2]byte
	rand.Read(b[:])
	subnets.Store(uint32(binary.NativeEndian.Uint16(b[:])))
}

// newSubnet has room for a thousand pods, and is no other's in this process.
func newSubnet() string {
	const perByte, bytes = 256 / 4, 126
	n := subnets.Add(1) % (perByte * bytes)
	return fmt.Sprintf("10.%d.%d.0/22", 128+n/perByte, n%perByte*4)
}

func newEnv(t testing.TB, o Options) (*Env, error) {
	dir, err := newDir("")
	if err != nil {
		return nil, err
	}
	var b [4]byte
	rand.Read(b[:])
	name := "gt" + hex.EncodeToString(b[:])
	if err := os.WriteFile(dir+"/name", []byte(name), 0o644); err != nil {
		return nil, err
	}
	manager := cmp.Or(o.CgroupManager, CgroupManager())
	e := &Env{
		Name:          name,
		Dir:           dir,
		Socket:        dir + "/gantry.sock",
		Root:          dir + "/root",
		RunRoot:       dir + "/run",
		LogDir:        dir + "/logs",
		CNIConfDir:    dir + "/net.d",
		CgroupParent:  cgroupParent(manager, name),
		CgroupManager: manager,
		Bridge:        name,
		Subnet:        newSubnet(),
		RuntimeName:   "crun",
		t:             t,
		registry:      "127.0.0.1:1",
		pluginDir:     []string{pluginDir(t)},
		environ:       o.Environ,
		enter:         o.Enter,
	}
	if o.Runtime != "" {
		e.RuntimeName = o.Runtime
	}
	if o.Registry != nil {
		e.registry = o.Registry.Address
	}
	if o.PluginDir != "" {
		e.pluginDir = append([]string{o.PluginDir}, e.pluginDir...)
	}
	return e, e.connect()
}

func (e *Env) connect() error {
	conn, err := grpc.NewClient("unix://"+e.Socket,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithUnaryInterceptor(e.record),
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: time.Second}),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true), grpc.MaxCallRecvMsgSize(64<<20)))
	if err != nil {
		return err
	}
	e.conn = conn
	e.Runtime = runtimeapi.NewRuntimeServiceClient(conn)
	e.Images = runtimeapi.NewImageServiceClient(conn)
	return nil
}

// record remembers the id of each pod, for the check of the firewall's chains.
func (e *Env) record(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	err := invoker(ctx, method, req, reply, cc, opts...)
	if r, ok := reply.(*runtimeapi.RunPodSandboxResponse); ok && err == nil {
		e.mu.Lock()
		e.pods = append(e.pods, r.PodSandboxId)
		e.mu.Unlock()
	}
	return err
}

// Context returns a context that ends after a minute, or with the test.
func (e *Env) Context() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	e.t.Cleanup(cancel)
	return ctx
}

// Registry returns the host:port that registries.conf names.
func (e *Env) Registry() string { return e.registry }

// finish removes every pod, checks for leaks, ends the daemon and removes all
// that is left, so that one failing test does not spoil the next.
func (e *Env) finish() {
	if e.daemon != nil && e.daemon.running() {
		e.RemoveAll()
		e.CheckLeaks()
	}
	e.StopDaemon()
	e.checkAfterStop()
	if e.t.Failed() {
		e.daemon.showLog(e.t)
	}
	if err := e.conn.Close(); err != nil {
		e.t.Errorf("close the connection: %v", err)
	}
	e.destroy()
}
