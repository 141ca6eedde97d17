package network

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gantry-cri/gantry/internal/id"
)

// TestRelease: every pod's network is given back, attached or not; one that was
// refused is told with the reason, is not tried twice, and is there for the next.
func TestRelease(t *testing.T) {
	b := newBed(t)
	dir := b.fake()
	b.conf("10.conflist", b.fakeConf("1.0.0"))
	m := b.manager()
	pods := []Pod{b.pod(), b.pod()}
	for _, pod := range pods {
		b.add(m, pod)
	}
	b.close(m)
	m = b.manager()
	set(t, dir, "fail.DEL", `{"code":100,"msg":"not now"}`)
	if err := m.Del(context.Background(), pods[0].ID); err == nil {
		t.Error("DEL did not fail")
	}
	errs := m.Release(context.Background())
	if len(errs) != 2 {
		t.Fatalf("have errors %v", errs)
	}
	for _, err := range errs {
		if !strings.Contains(err.Error(), "not given back: ") || !strings.Contains(err.Error(), "not now") {
			t.Errorf("have error %v", err)
		}
	}
	b.close(m)
	if have := b.calls(pods[0].ID); have != "ADD DEL" {
		t.Errorf("the plugin was called with %s", have)
	}
	if n := RecordCount(b.opts.StateDir); n != 2 {
		t.Errorf("%d records are left", n)
	}
	unset(t, dir, "fail.DEL")
	m = b.manager()
	if errs := m.Release(context.Background()); len(errs) > 0 {
		t.Error(errs)
	}
	if n := RecordCount(b.opts.StateDir); n != 0 {
		t.Errorf("%d records are left", n)
	}
}

// TestReleaseDamaged: with the record and the cache lost, real plugins give back
// address, rules and ports by the pod's name.
func TestReleaseDamaged(t *testing.T) {
	b := newBed(t)
	b.conf("10.conflist", b.bridge(false))
	m := b.manager()
	pod := b.pod()
	pod.Ports = []PortMapping{{HostPort: 18081, ContainerPort: 80}}
	b.add(m, pod)
	b.close(m)
	if err := os.WriteFile(m.journal.path(pod.ID), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(b.opts.StateDir, "cache")); err != nil {
		t.Fatal(err)
	}
	m = b.manager()
	if errs := m.ReleaseDamaged(context.Background(), func(id.Pod) string { return pod.NetNS }); len(errs) > 0 {
		t.Error(errs)
	}
	b.close(m)
	m = b.manager()
	b.conf("10.conflist", nil)
	if errs := m.ReleaseDamaged(context.Background(), func(id.Pod) string { return "" }); len(errs) > 0 {
		t.Errorf("again: %v", errs)
	}
}
