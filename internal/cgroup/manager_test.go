package cgroup

import (
	"strings"
	"testing"

	"github.com/gantry-cri/gantry/internal/errkind"
)

func TestParent(t *testing.T) {
	const invalid = "invalid"
	for _, c := range []struct {
		manager     Manager
		asked, want string
	}{
		{Cgroupfs, "/kubepods/burstable/pod1", "/kubepods/burstable/pod1"},
		{Cgroupfs, "kubepods/pod1/", "/kubepods/pod1"},
		{"", "/pod1", "/pod1"},
		{Cgroupfs, "/kubepods.slice/kubepods-pod1.slice", invalid},
		{Cgroupfs, "pod1.slice", invalid},
		{Cgroupfs, "/a/../b", invalid},
		{Cgroupfs, "/a\nb", invalid},
		{Systemd, "kubepods-burstable-pod1.slice", "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice"},
		{Systemd, "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice",
			"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice"},
		{Systemd, "/kubepods-pod1.slice", "/kubepods.slice/kubepods-pod1.slice"},
		{Systemd, "system.slice", "/system.slice"},
		{Systemd, "-.slice", "/"},
		{Systemd, "/elsewhere/kubepods-pod1.slice", invalid},
		{Systemd, "/kubepods/burstable/pod1", invalid},
		{Systemd, "/", invalid},
		{Systemd, ".slice", invalid},
		{Systemd, "--.slice", invalid},
		{Systemd, "-a.slice", invalid},
		{Systemd, "a-.slice", invalid},
		{Systemd, "a--b.slice", invalid},
		{Systemd, "a b.slice", invalid},
		{Systemd, "a:b/../c.slice", invalid},
		{Systemd, strings.Repeat("a", 250) + ".slice", invalid},
	} {
		got, err := c.manager.Parent(c.asked)
		if (errkind.Of(err) == errkind.Invalid) != (c.want == invalid) || err == nil && got != c.want {
			t.Errorf("%q.Parent(%q) = %q, %v; want %s", c.manager, c.asked, got, err, c.want)
		}
	}
}

func TestNames(t *testing.T) {
	for _, c := range []struct {
		manager                  Manager
		configured               string
		parent, child, spec, one string
	}{
		{Cgroupfs, "/gantry", "/gantry/pod", "/gantry/pod/ctr", "/gantry/pod/ctr", "pod"},
		{"", "/", "/pod", "/pod/ctr", "/pod/ctr", "pod"},
		{Systemd, "/gantry", "/gantry.slice/gantry-pod.slice", "/gantry.slice/gantry-pod.slice/gantry-ctr.scope",
			"gantry-pod.slice:gantry:ctr", "gantry-pod.slice"},
		{Systemd, "/a/b", "/a.slice/a-b.slice/a-b-pod.slice", "/a.slice/a-b.slice/a-b-pod.slice/gantry-ctr.scope",
			"a-b-pod.slice:gantry:ctr", "a-b-pod.slice"},
		{Systemd, "/a.slice/a-b.slice", "/a.slice/a-b.slice/a-b-pod.slice", "/a.slice/a-b.slice/a-b-pod.slice/gantry-ctr.scope",
			"a-b-pod.slice:gantry:ctr", "a-b-pod.slice"},
		{Systemd, "/", "/pod.slice", "/pod.slice/gantry-ctr.scope", "pod.slice:gantry:ctr", "pod.slice"},
	} {
		parent, err := c.manager.Default(c.configured, "pod")
		if err != nil || parent != c.parent {
			t.Errorf("%q.Default(%q) = %q, %v", c.manager, c.configured, parent, err)
			continue
		}
		if got := c.manager.Child(parent, "ctr"); got != c.child {
			t.Errorf("%q.Child(%q) = %q", c.manager, parent, got)
		}
		if got := c.manager.SpecPath(parent, "ctr"); got != c.spec {
			t.Errorf("%q.SpecPath(%q) = %q", c.manager, parent, got)
		}
		if got := Unit(parent); got != c.one {
			t.Errorf("Unit(%q) = %q", parent, got)
		}
	}
	if _, err := Systemd.Default("/a--b", "pod"); errkind.Of(err) != errkind.Invalid {
		t.Errorf("a parent that is no slice: %v", err)
	}
	if got := Unit("/"); got != "-.slice" {
		t.Error(got)
	}
}
