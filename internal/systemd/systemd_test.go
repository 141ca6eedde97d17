package systemd

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/gantry-cri/gantry/internal/errkind"
)

// bus starts a real message bus of the test's own and returns its address.
func bus(t *testing.T) string {
	t.Helper()
	program, err := exec.LookPath("dbus-daemon")
	if err != nil {
		t.Fatalf("dbus-daemon is not installed (test/setup/install.sh does it): %v", err)
	}
	dir := t.TempDir()
	address := "unix:path=" + filepath.Join(dir, "bus")
	config := filepath.Join(dir, "bus.conf")
	text := fmt.Sprintf(`<busconfig><type>system</type><listen>%s</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_destination="*"/><allow eavesdrop="true"/></policy></busconfig>`, address)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "--nofork", "--nopidfile", "--config-file="+config, "--print-address")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = cmd.Process.Kill(), cmd.Wait() })
	if _, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
		t.Fatalf("dbus-daemon does not say its address: %v", err)
	}
	return address
}

// fake is a service manager: it remembers units, and behaves as it is told.
type fake struct {
	conn *dbus.Conn

	mu      sync.Mutex // guards what follows
	units   map[string]map[string]dbus.Variant
	job     int
	result  string      // of the next jobs
	refusal *dbus.Error // of every call
	hang    bool        // jobs never end
}

// serve puts a fake at the well-known name.
func serve(t *testing.T, address string) *fake {
	t.Helper()
	conn, err := dbus.Connect(address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	f := &fake{conn: conn, units: make(map[string]map[string]dbus.Variant), result: "done"}
	if err := conn.Export(f, objectPath, manager); err != nil {
		t.Fatal(err)
	}
	if reply, err := conn.RequestName(service, dbus.NameFlagDoNotQueue); err != nil || reply != dbus.RequestNameReplyPrimaryOwner {
		t.Fatal(reply, err)
	}
	return f
}

func (f *fake) Subscribe() *dbus.Error { return nil }

func (f *fake) StartTransientUnit(name, mode string, properties []property, _ []auxiliary) (dbus.ObjectPath, *dbus.Error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.refusal != nil {
		return "", f.refusal
	}
	if _, known := f.units[name]; known {
		return "", dbus.NewError(unitExists, []any{"Unit " + name + " already exists."})
	}
	f.units[name] = map[string]dbus.Variant{}
	for _, p := range properties {
		f.units[name][p.Name] = p.Value
	}
	return f.endLocked(name), nil
}

func (f *fake) StopUnit(name, mode string) (dbus.ObjectPath, *dbus.Error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, known := f.units[name]; !known {
		return "", dbus.NewError(noSuchUnit, []any{"Unit " + name + " not loaded."})
	}
	delete(f.units, name)
	return f.endLocked(name), nil
}

// endLocked begins a job and ends it, before the caller is told of it: systemd
// may do that too. Others' jobs end meanwhile.
func (f *fake) endLocked(name string) dbus.ObjectPath {
	f.job++
	path := dbus.ObjectPath(fmt.Sprintf("%s/job/%d", objectPath, f.job))
	for i := range 50 {
		other := dbus.ObjectPath(fmt.Sprintf("%s/job/%d", objectPath, 100000+i))
		_ = f.conn.Emit(objectPath, manager+"."+jobRemoved, uint32(i), other, name, "failed")
	}
	if !f.hang {
		_ = f.conn.Emit(objectPath, manager+"."+jobRemoved, uint32(f.job), path, name, f.result)
	}
	return path
}

func (f *fake) unit(name string) map[string]dbus.Variant {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.units[name]
}

func (f *fake) set(change func(*fake)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

func TestUnits(t *testing.T) {
	address := bus(t)
	f := serve(t, address)
	c := New(address, 20*time.Second)
	ctx := context.Background()
	for range 2 { // the second finds it
		if err := c.StartSlice(ctx, "gantry-pod.slice"); err != nil {
			t.Fatal(err)
		}
	}
	scope := Scope{Name: "gantry-x.scope", Slice: "gantry-pod.slice", PID: 4711, Description: "a test"}
	if err := c.StartScope(ctx, scope); err != nil {
		t.Fatal(err)
	}
	got := f.unit("gantry-x.scope")
	for name, want := range map[string]string{
		"PIDs": "@au [4711]", "Slice": `"gantry-pod.slice"`, "Delegate": "true", "CollectMode": `"inactive-or-failed"`, "MemoryAccounting": "true",
	} {
		if got[name].String() != want {
			t.Errorf("%s is %s, want %s", name, got[name], want)
		}
	}
	if err := c.StartScope(ctx, scope); err == nil || errkind.Of(err) != errkind.Other {
		t.Errorf("a scope that exists: %v", err)
	}
	var g sync.WaitGroup
	for i := range 20 {
		g.Go(func() {
			if err := c.StartSlice(ctx, fmt.Sprintf("many%d.slice", i)); err != nil {
				t.Error(err)
			}
		})
	}
	g.Wait()
	for range 2 { // the second finds none
		if err := c.Stop(ctx, "gantry-pod.slice"); err != nil {
			t.Error(err)
		}
	}
	if f.unit("gantry-pod.slice") != nil {
		t.Error("the slice is still there")
	}
}

func TestRefusals(t *testing.T) {
	address := bus(t)
	c := New(address, 20*time.Second)
	ctx := context.Background()
	if err := c.StartSlice(ctx, "a.slice"); err == nil {
		t.Error("there is no systemd on the bus, and no error")
	}
	f := serve(t, address)
	f.set(func(f *fake) { f.refusal = dbus.NewError("org.freedesktop.DBus.Error.AccessDenied", []any{"go away"}) })
	if err := c.StartSlice(ctx, "a.slice"); err == nil || !strings.Contains(err.Error(), "go away") {
		t.Errorf("refused: %v", err)
	}
	f.set(func(f *fake) { f.refusal, f.result = nil, "failed" })
	if err := c.StartSlice(ctx, "a.slice"); err == nil || !strings.Contains(err.Error(), `"failed"`) {
		t.Errorf("a job that fails: %v", err)
	}
	none := New("unix:path="+filepath.Join(t.TempDir(), "none"), 20*time.Second)
	if err := none.Stop(ctx, "a.slice"); errkind.Of(err) != errkind.Unavailable {
		t.Errorf("nobody listens: %v", err)
	}
	if err := New("tcp:host=127.0.0.1", time.Second).Stop(ctx, "a.slice"); err == nil {
		t.Error("an address that is no socket was taken")
	}
}

// TestHangs: an operation ends when its time is over, wherever the other side
// stops to answer.
func TestHangs(t *testing.T) {
	address := bus(t)
	f := serve(t, address)
	f.set(func(f *fake) { f.hang = true })
	dead := filepath.Join(t.TempDir(), "dead")
	l, err := net.Listen("unix", dead)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for what, address := range map[string]string{"the job": address, "the greeting": "unix:path=" + dead} {
		start := time.Now()
		err := New(address, 200*time.Millisecond).StartSlice(context.Background(), "a.slice")
		if errkind.Of(err) != errkind.Timeout {
			t.Errorf("%s hangs: %v", what, err)
		}
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("%s hangs: that took %s", what, took)
		}
	}
	changed := New("unix:path="+dead, time.Hour)
	changed.SetTimeout(200 * time.Millisecond)
	if err := changed.StartSlice(context.Background(), "a.slice"); errkind.Of(err) != errkind.Timeout {
		t.Errorf("with another timeout: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(50*time.Millisecond, cancel)
	if err := New("unix:path="+dead, time.Hour).Stop(ctx, "a.slice"); err == nil {
		t.Error("no error though the caller went away")
	}
}

func TestAddress(t *testing.T) {
	if got := AddressFrom(func(string) string { return "" }); got != DefaultAddress {
		t.Error(got)
	}
	if got := AddressFrom(func(string) string { return "unix:path=/x" }); got != "unix:path=/x" {
		t.Error(got)
	}
}
