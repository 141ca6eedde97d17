package selinux

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/internal/errkind"
)

type option = runtimeapi.SELinuxOption

// policy is a kernel that knows a few types.
type policy struct {
	mu       sync.Mutex
	next     int
	reserved []string
}

func (p *policy) node() *Node {
	return New(true, Kernel{
		New: func() Labels {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.next++
			level := fmt.Sprintf("s0:c%d,c%d", p.next, p.next+100)
			p.reserved = append(p.reserved, "system_u:system_r:container_t:"+level)
			return Labels{"system_u:system_r:container_t:" + level, "system_u:object_r:container_file_t:" + level}
		},
		Reserve: func(l string) {
			if !slices.Contains(p.reserved, l) {
				p.reserved = append(p.reserved, l)
			}
		},
		Release: func(l string) { p.reserved = slices.DeleteFunc(p.reserved, func(r string) bool { return r == l }) },
		Check: func(l string) error {
			if l == "system_u:system_r:no_such_t:s0:c1,c101" {
				return unix.EINVAL
			}
			return nil
		},
	})
}

// TestLabels: the pod's categories are its own, and its containers have them.
func TestLabels(t *testing.T) {
	p := &policy{}
	n := p.node()
	pod, err := n.Pod(nil)
	if want := (Labels{"system_u:system_r:container_t:s0:c1,c101", "system_u:object_r:container_file_t:s0:c1,c101"}); err != nil || pod != want {
		t.Fatalf("%v, %v", pod, err)
	}
	other, err := n.Pod(&option{Type: "spc_t"})
	if want := (Labels{"system_u:system_r:spc_t:s0:c2,c102", "system_u:object_r:container_file_t:s0:c2,c102"}); err != nil || other != want {
		t.Errorf("another pod: %v, %v", other, err)
	}
	for name, c := range map[string]struct {
		o        *option
		confined bool
		want     Labels
	}{
		"as the pod":         {nil, true, pod},
		"empty options":      {&option{}, true, pod},
		"a type":             {&option{Type: "container_init_t"}, true, Labels{"system_u:system_r:container_init_t:s0:c1,c101", pod.Mount}},
		"a level":            {&option{Level: "s0:c5,c6"}, true, Labels{"system_u:system_r:container_t:s0:c5,c6", "system_u:object_r:container_file_t:s0:c5,c6"}},
		"everything":         {&option{User: "u", Role: "r", Type: "t", Level: "s1"}, true, Labels{"u:r:t:s1", "u:object_r:container_file_t:s1"}},
		"privileged":         {nil, false, Labels{"", pod.Mount}},
		"privileged, a type": {&option{Type: "t"}, false, Labels{"system_u:system_r:t:s0:c1,c101", pod.Mount}},
	} {
		if got, err := n.Container(pod, c.o, c.confined); err != nil || got != c.want {
			t.Errorf("%s: %v, %v; want %v", name, got, err, c.want)
		}
	}
	if _, err := n.Container(pod, &option{Type: "no_such_t"}, true); errkind.Of(err) != errkind.Invalid {
		t.Errorf("unknown type: %v", err)
	}
	if _, err := n.Container(Labels{}, &option{Type: "t"}, true); errkind.Of(err) != errkind.Unsupported {
		t.Errorf("a policy without labels: %v", err)
	}
}

// TestReservations: categories are given back once, and a level of the
// request's needs none of the pod's own.
func TestReservations(t *testing.T) {
	p := &policy{}
	n := p.node()
	a, err1 := n.Pod(nil)
	b, err2 := n.Pod(&option{Level: "s0:c7,c8"})
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	if want := []string{a.Process, b.Process}; !slices.Equal(p.reserved, want) {
		t.Errorf("reserved %q, want %q", p.reserved, want)
	}
	p.next = 0
	p.reserved = nil
	if _, err := n.Pod(&option{Type: "no_such_t"}); err == nil || len(p.reserved) != 0 {
		t.Errorf("%v, reserved %q", err, p.reserved)
	}
	n.Reserve(a)
	n.Release(a)
	if len(p.reserved) != 0 {
		t.Errorf("reserved %q", p.reserved)
	}
}

// TestPolicyWithoutContainers: a policy may name labels for containers that it
// does not know, as Debian's does. A pod can't run under them.
func TestPolicyWithoutContainers(t *testing.T) {
	p := &policy{}
	k := p.node().kernel
	if err := p.node().Problem(); err != nil || len(p.reserved) != 0 {
		t.Errorf("a good policy: %v, reserved %q", err, p.reserved)
	}
	k.Check = func(string) error { return unix.EINVAL }
	n := New(true, k)
	if l, err := n.Pod(nil); err != nil || l != (Labels{}) {
		t.Errorf("%v, %v", l, err)
	}
	if _, err := n.Pod(&option{Type: "container_t"}); errkind.Of(err) != errkind.Unsupported {
		t.Errorf("with a type: %v", err)
	}
	if n.Problem() == nil || len(p.reserved) != 0 {
		t.Errorf("%v, reserved %q", n.Problem(), p.reserved)
	}
	k.New = func() Labels { return Labels{} }
	if n := New(true, k); n.Problem() == nil || New(false, k).Problem() != nil {
		t.Errorf("a policy without a word of containers: %v", n.Problem())
	}
}

// TestDisabled: without SELinux nothing is asked of the kernel.
func TestDisabled(t *testing.T) {
	n := New(false, Kernel{})
	pod, err1 := n.Pod(&option{Type: "spc_t"})
	ctr, err2 := n.Container(pod, &option{Type: "spc_t"}, true)
	err3 := n.Relabel(t.Context(), "/usr", "label")
	n.Reserve(Labels{"a", "b"})
	n.Release(Labels{"a", "b"})
	if err := errors.Join(err1, err2, err3); err != nil || pod != (Labels{}) || ctr != (Labels{}) {
		t.Errorf("%v %v %v", pod, ctr, err)
	}
}

// TestRelabel: one walk for all who wait for the same, which goes on when they
// have given up, beside those of others; never of the node's own directories.
func TestRelabel(t *testing.T) {
	var walks atomic.Int32
	release := make(chan struct{})
	n := New(true, Kernel{Relabel: func(path, mount string) error {
		switch path {
		case "/data/big":
			walks.Add(1)
			<-release
		case "/data/nolabels":
			return &lstatError{unix.ENOTSUP}
		case "/data/broken":
			return unix.EIO
		}
		return nil
	}})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := n.Relabel(ctx, "/data/big", "m"); errkind.Of(err) != errkind.Timeout {
		t.Errorf("a caller that gave up: %v", err)
	}
	joined := n.begin("/data/big", "m")
	if joined != n.begin("/data/big", "m") {
		t.Error("a second walk of the same volume")
	}
	if err := n.Relabel(t.Context(), "/data/small", "m"); err != nil { // while the big one is walked
		t.Error(err)
	}
	if err := n.Relabel(t.Context(), "/data/nolabels", "m"); err != nil {
		t.Error(err)
	}
	if err := n.Relabel(t.Context(), "/data/broken", "m"); !errors.Is(err, unix.EIO) {
		t.Errorf("a failure: %v", err)
	}
	close(release)
	<-joined.done
	if joined.err != nil || walks.Load() != 1 {
		t.Errorf("%v, %d walks", joined.err, walks.Load())
	}
	for _, path := range []string{"/", "/usr", "/usr/share/x", "/etc", "/etc/hosts", "/var/lib", "/home", "/proc/1", "/data/../etc"} {
		if err := n.Relabel(t.Context(), path, "m"); errkind.Of(err) != errkind.Invalid {
			t.Errorf("%s: %v", path, err)
		}
	}
	for _, path := range []string{"/usrlocal", "/var/lib/data", "/home/user"} {
		if err := n.Relabel(t.Context(), path, "m"); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
}

type lstatError struct{ error }

func (e *lstatError) Unwrap() error { return e.error }
