package cgroup

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	rspec "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/gantry-cri/gantry/internal/errkind"
	"github.com/gantry-cri/gantry/internal/node"
)

func ptr[T any](v T) *T { return &v }

// values reads files of the cgroup, as FILE=VALUE.
func values(t *testing.T, c Change) []string {
	t.Helper()
	var out []string
	for _, w := range c {
		text, err := os.ReadFile(w.File)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, filepath.Base(w.File)+"="+strings.TrimSpace(string(text)))
	}
	slices.Sort(out)
	return out
}

// TestLimitsOrder raises and lowers limits that the kernel compares with each
// other and with the parent's, in a real cgroup of version 1.
func TestLimitsOrder(t *testing.T) {
	f := probe(t)
	if f.CgroupV2 {
		t.Skip("version 2 has one file where version 1 has two")
	}
	path := scratch(t, f)
	if err := Create(f, path+"/child"); err != nil {
		t.Fatal(err)
	}
	set := func(cgroup string, memory, swap, quota int64, period uint64) Change {
		t.Helper()
		r := &rspec.LinuxResources{CPU: &rspec.LinuxCPU{Quota: &quota, Period: &period}, Memory: &rspec.LinuxMemory{Limit: &memory}}
		if f.SwapAccounting {
			r.Memory.Swap = &swap
		}
		c, err := Limits(f, cgroup, r, 0)
		if err != nil {
			t.Fatal(err)
		}
		before := values(t, c)
		if err := c.Apply(); err != nil {
			t.Fatalf("%d %d %d/%d: %v", memory, swap, quota, period, err)
		}
		after := values(t, c)
		if err := errors.Join(c.Undo(), c.Undo()); err != nil {
			t.Fatalf("undo of %d %d %d/%d: %v", memory, swap, quota, period, err)
		}
		if got := values(t, c); !slices.Equal(got, before) {
			t.Fatalf("undone: got %q, want %q", got, before)
		}
		if err := c.Apply(); err != nil {
			t.Fatal(err)
		}
		if got := values(t, c); !slices.Equal(got, after) {
			t.Fatalf("applied again: got %q, want %q", got, after)
		}
		return c
	}
	set(path, -1, -1, 100000, 100000) // the parent has one CPU
	child := path + "/child"
	for _, l := range []struct {
		memory, swap, quota int64
		period              uint64
	}{
		{64 << 20, 64 << 20, 50000, 100000},
		{128 << 20, 256 << 20, 100000, 100000}, // above the former memsw
		{32 << 20, 32 << 20, 10000, 10000},     // the quota has to go first
		{32 << 20, 48 << 20, 500000, 1000000},  // the period has to
		{-1, -1, -1, 100000},
		{16 << 20, 16 << 20, 1000, 50000},
		{-1, -1, 100000, 100000},
	} {
		set(child, l.memory, l.swap, l.quota, l.period)
	}
}

// TestLimitsRefused: what the parent lacks is refused, and everything is as before.
func TestLimitsRefused(t *testing.T) {
	f := probe(t)
	if f.CgroupV2 {
		t.Skip("version 2 takes what the parent lacks")
	}
	path := scratch(t, f)
	if err := Create(f, path); err != nil {
		t.Fatal(err)
	}
	parent, err := Limits(f, path, &rspec.LinuxResources{CPU: &rspec.LinuxCPU{Quota: ptr(int64(50000)), Period: ptr(uint64(100000)), Cpus: "0"}}, 0)
	if err == nil {
		err = parent.Apply()
	}
	if err == nil {
		err = Create(f, path+"/child")
	}
	if err != nil {
		t.Fatal(err)
	}
	for name, cpu := range map[string]*rspec.LinuxCPU{
		"quota": {Quota: ptr(int64(60000)), Period: ptr(uint64(100000))},
		"set":   {Shares: ptr(uint64(77)), Cpus: "1"},
	} {
		c, err := Limits(f, path+"/child", &rspec.LinuxResources{Memory: &rspec.LinuxMemory{Limit: ptr(int64(64 << 20))}, CPU: cpu}, 0)
		if err != nil {
			t.Fatal(err)
		}
		before := values(t, c)
		if err := c.Apply(); errkind.Of(err) != errkind.Precondition {
			t.Errorf("%s: got %v", name, err)
		}
		if after := values(t, c); !slices.Equal(before, after) {
			t.Errorf("%s: before %q, after the refusal %q", name, before, after)
		}
	}
	if _, err := Limits(f, path+"/none", &rspec.LinuxResources{CPU: &rspec.LinuxCPU{Cpus: "0"}}, 0); errkind.Of(err) != errkind.Precondition {
		t.Errorf("a cgroup that is not there: %v", err)
	}
}

// TestLimitsV2 plans for a directory that looks like a version 2 cgroup.
func TestLimitsV2(t *testing.T) {
	root := t.TempDir()
	f := node.Facts{CgroupRoot: root, CgroupV2: true}
	for file, text := range map[string]string{
		"memory.max": "max", "memory.swap.max": "max", "memory.high": "max", "memory.current": "1000000", "memory.reclaim": "",
		"cpu.weight": "100", "cpu.max": "max 100000", "cpu.max.burst": "5000", "cpuset.cpus": "", "hugetlb.2MB.max": "max",
	} {
		if err := os.MkdirAll(filepath.Join(root, "x"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, "x", file), []byte(text+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c, err := Limits(f, "/x", &rspec.LinuxResources{
		Memory:         &rspec.LinuxMemory{Limit: ptr(int64(2 << 20)), Swap: ptr(int64(3 << 20))},
		CPU:            &rspec.LinuxCPU{Shares: ptr(uint64(2048)), Quota: ptr(int64(4000)), Cpus: "0"},
		HugepageLimits: []rspec.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 0}},
		Unified:        map[string]string{"memory.high": "1500000", "cpu.max.burst": "1000"},
	}, 0)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, w := range c {
		got = append(got, filepath.Base(w.File)+"="+w.New+" was "+w.Old)
	}
	want := []string{"cpu.max.burst=1000 was 5000", "memory.max=2097152 was max", "memory.swap.max=1048576 was max", "cpu.weight=174 was 100",
		"cpu.max=4000 100000 was max 100000", "cpuset.cpus=0 was ", "hugetlb.2MB.max=0 was max", "memory.high=1500000 was max"}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	low, err := Limits(f, "/x", &rspec.LinuxResources{Memory: &rspec.LinuxMemory{Limit: ptr(int64(500000))}}, 0)
	if err == nil {
		err = low.Apply()
	}
	if errkind.Of(err) != errkind.Precondition || !strings.Contains(err.Error(), "1000000 bytes") {
		t.Errorf("a limit below what is used: %v", err)
	}
	if _, err := Limits(f, "/x", &rspec.LinuxResources{Unified: map[string]string{"memory.none": "1"}}, 0); errkind.Of(err) != errkind.Invalid {
		t.Errorf("a file that is not there: %v", err)
	}
}

func TestWeight(t *testing.T) {
	for _, c := range []struct {
		shares, former uint64
		present, want  string
	}{
		{1024, 0, "100", "100"}, {2, 0, "100", "1"}, {262144, 0, "100", "10000"},
		{1024, 512, "20", "39"}, // 512 on the line
		{1024, 512, "59", "100"},
		{2048, 1024, "39", "79"},
	} {
		if got := weightOf(c.shares, c.former, c.present); got != c.want {
			t.Errorf("weightOf(%d, %d, %s) = %s, want %s", c.shares, c.former, c.present, got, c.want)
		}
	}
}

// TestReclaim: it ends when enough is gained, and when what is reclaimed comes
// back, as the pages of a busy container do.
func TestReclaim(t *testing.T) {
	file := filepath.Join(t.TempDir(), "memory.reclaim")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		gain, want uint64
		asked      int
	}{{reclaimStep, 90 << 20, 10}, {0, 100 << 20, reclaimVain}} {
		n, asked := uint64(100<<20), 0
		got, err := reclaim(file, n, 90<<20, func() (uint64, error) {
			asked++
			n -= test.gain
			return n, nil
		})
		if err != nil || got != test.want || asked != test.asked {
			t.Errorf("a gain of %d with each step: %d is used after %d steps, %v", test.gain, got, asked, err)
		}
	}
	if got, err := reclaim(filepath.Join(t.TempDir(), "none"), 5, 1, func() (uint64, error) { return 5, nil }); got != 5 || err != nil {
		t.Errorf("a kernel without the file: %d, %v", got, err)
	}
}
