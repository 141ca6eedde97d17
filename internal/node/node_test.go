package node

import (
	"os"
	"reflect"
	"slices"
	"testing"
)

func TestProbe(t *testing.T) {
	f, err := Probe()
	if err != nil {
		t.Fatal(err)
	}
	if f.Kernel == "" || len(f.BootID) != 36 || len(f.Bounding) == 0 || f.Rlimits["RLIMIT_NOFILE"].Hard == 0 {
		t.Errorf("incomplete: %+v", f)
	}
	if !f.CgroupControllers["memory"] || !f.CgroupControllers["pids"] {
		t.Errorf("no memory or pids controller: %v", f.CgroupControllers)
	}
	if f.CgroupV2 == (len(f.CgroupV1) > 0) {
		t.Errorf("version 2 is %v, and version 1 has %v", f.CgroupV2, f.CgroupV1)
	}
	for controller, dir := range f.CgroupV1 {
		if _, err := os.Stat(dir + "/cgroup.procs"); err != nil {
			t.Errorf("%s: %v", controller, err)
		}
	}
}

func TestHierarchies(t *testing.T) {
	const (
		v1cpu    = "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
		v1mem    = "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
		v1again  = "99 31 0:32 / /mnt/memory rw,relatime - cgroup cgroup rw,memory\n"
		v1named  = "40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/x,name=systemd\n"
		hybrid   = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
		v2       = "26 23 0:23 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
		v2second = "77 23 0:23 / /var/lib/x/cgroup rw - cgroup2 cgroup2 rw\n"
		other    = "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard\nnonsense\n"
	)
	for _, c := range []struct {
		name, mounts string
		want         Facts
	}{
		{"version 1", other + v1cpu + v1mem + v1again + v1named, Facts{
			CgroupV1: map[string]string{
				"cpu": "/sys/fs/cgroup/cpu,cpuacct", "cpuacct": "/sys/fs/cgroup/cpu,cpuacct",
				"memory": "/sys/fs/cgroup/memory", "name=systemd": "/sys/fs/cgroup/systemd",
			},
			CgroupControllers: map[string]bool{"cpu": true, "cpuacct": true, "memory": true},
		}},
		{"hybrid", v1mem + hybrid, Facts{
			CgroupV1:          map[string]string{"memory": "/sys/fs/cgroup/memory"},
			CgroupControllers: map[string]bool{"memory": true},
			CgroupUnified:     "/sys/fs/cgroup/unified",
		}},
		{"version 2", v2 + v2second, Facts{
			CgroupV2: true, CgroupRoot: "/sys/fs/cgroup", CgroupControllers: map[string]bool{},
		}},
		{"version 2 with a named version 1 hierarchy", v2 + v1named, Facts{
			CgroupV2: true, CgroupRoot: "/sys/fs/cgroup", CgroupControllers: map[string]bool{},
		}},
	} {
		var got Facts
		got.setHierarchies(parseCgroupMounts(c.mounts))
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s:\n got %+v\nwant %+v", c.name, got, c.want)
		}
	}
}

func TestParseOwnCgroups(t *testing.T) {
	got := parseOwnCgroups("9:name=systemd:/a\n4:cpu,cpuacct:/b:c\n0::/d\nnonsense\n")
	want := map[string]string{"name=systemd": "/a", "cpu": "/b:c", "cpuacct": "/b:c", "": "/d"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestCapabilities(t *testing.T) {
	bounding, effective, err := parseCapabilities("Name:\tx\nCapEff:\t0000000001000000\nCapBnd:\t000001ffffffffff\n")
	if err != nil || effective != 1<<24 || bounding != 1<<41-1 {
		t.Errorf("%x %x %v", bounding, effective, err)
	}
	all := capabilityNames(bounding)
	if len(all) != 41 || all[0] != "CAP_CHOWN" || all[40] != "CAP_CHECKPOINT_RESTORE" {
		t.Errorf("%d: %v", len(all), all)
	}
	if got := capabilityNames(1<<24 | 1<<63); !slices.Equal(got, []string{"CAP_SYS_RESOURCE"}) {
		t.Error(got)
	}
	for _, text := range []string{"", "CapEff: 0\n", "CapEff: 0\nCapBnd: xyz\n"} {
		if _, _, err := parseCapabilities(text); err == nil {
			t.Errorf("%q is accepted", text)
		}
	}
}

func TestClamp(t *testing.T) {
	poor := Facts{OOMScoreAdj: -5, Rlimits: map[string]Rlimit{"RLIMIT_NOFILE": {100, 200}}}
	rich := poor
	rich.CanRaiseLimits = true
	for _, c := range []struct {
		facts      Facts
		name       string
		limit      Rlimit
		want       Rlimit
		wantChange bool
	}{
		{poor, "RLIMIT_NOFILE", Rlimit{150, 200}, Rlimit{150, 200}, false},
		{poor, "RLIMIT_NOFILE", Rlimit{150, Unlimited}, Rlimit{150, 200}, true},
		{poor, "RLIMIT_NOFILE", Rlimit{Unlimited, Unlimited}, Rlimit{200, 200}, true},
		{rich, "RLIMIT_NOFILE", Rlimit{Unlimited, Unlimited}, Rlimit{Unlimited, Unlimited}, false},
		{poor, "RLIMIT_UNKNOWN", Rlimit{1, 2}, Rlimit{1, 2}, false},
	} {
		if got, changed := c.facts.ClampRlimit(c.name, c.limit); got != c.want || changed != c.wantChange {
			t.Errorf("ClampRlimit(%s, %v) = %v, %v", c.name, c.limit, got, changed)
		}
	}
	for _, c := range []struct {
		facts Facts
		adj   int64
		want  int
	}{
		{poor, -998, -5}, {poor, -1, -1}, {poor, 0, 0}, {poor, 1000, 1000}, {poor, 1 << 40, 1000},
		{rich, -998, -998}, {rich, -1 << 40, -1000},
	} {
		if got := c.facts.ClampOOMScoreAdj(c.adj); got != c.want {
			t.Errorf("ClampOOMScoreAdj(%d) = %d, want %d", c.adj, got, c.want)
		}
	}
}

func TestHugepageSize(t *testing.T) {
	for kib, want := range map[int64]string{64: "64KB", 2048: "2MB", 1 << 20: "1GB", 32768: "32MB", 16 << 20: "16GB"} {
		if got := hugepageSize(kib); got != want {
			t.Errorf("%d: %s, want %s", kib, got, want)
		}
	}
}
