package oci

import (
	"testing"

	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/internal/errkind"
	"github.com/gantry-cri/gantry/internal/node"
)

func unified(key, value string) *resources {
	return &resources{Unified: map[string]string{key: value}}
}

func hugepages(size string, limit uint64) *resources {
	return &resources{HugepageLimits: []*runtimeapi.HugepageLimit{{PageSize: size, Limit: limit}}}
}

func TestResourcesRefuses(t *testing.T) {
	for name, r := range map[string]*resources{
		"negative memory":          {MemoryLimitInBytes: -2},
		"negative swap":            {MemoryLimitInBytes: 1 << 20, MemorySwapLimitInBytes: -5},
		"less swap than memory":    {MemoryLimitInBytes: 2 << 20, MemorySwapLimitInBytes: 1 << 20},
		"swap without memory":      {MemorySwapLimitInBytes: 1 << 20},
		"one share":                {CpuShares: 1},
		"too many shares":          {CpuShares: 262145},
		"negative shares":          {CpuShares: -1},
		"a short period":           {CpuPeriod: 999},
		"a long period":            {CpuPeriod: 1000001},
		"a small quota":            {CpuQuota: 999},
		"a negative quota":         {CpuQuota: -2},
		"a blank CPU set":          {CpusetCpus: " "},
		"an empty range":           {CpusetCpus: "0,"},
		"a range backwards":        {CpusetCpus: "1-0"},
		"CPUs that are words":      {CpusetCpus: "all"},
		"a CPU that is not there":  {CpusetCpus: "0-64"},
		"a node that is not there": {CpusetMems: "1"},
		"a score below the range":  {OomScoreAdj: -1001},
		"a score above the range":  {OomScoreAdj: 1001},
		"an unknown page size":     hugepages("64KB", 1),
		"no page size":             hugepages("", 0),
		"half a page size":         hugepages("MB", 0),
		"a page size in bytes":     hugepages("2097152", 0),
		"a path":                   unified("../../x/memory.max", "1"),
		"a path below":             unified("sub/memory.max", "1"),
		"no file":                  unified("memory", "1"),
		"a hidden file":            unified(".max", "1"),
		"the processes":            unified("cgroup.procs", "1"),
		"the kill switch":          unified("cgroup.kill", "1"),
		"an empty value":           unified("memory.high", ""),
		"a null byte":              unified("memory.high", "1\x00"),
	} {
		n := nodeV2()
		n.PossibleCPUs, n.PossibleMemoryNodes = "0-3", "0"
		if _, err := Resources(r, n); errkind.Of(err) != errkind.Invalid {
			t.Errorf("%s: got %v, want an error of kind Invalid", name, err)
		}
	}
	for name, n := range map[string]node.Facts{"version 1": nodeV1(), "no controller": {CgroupV2: true}} {
		if _, err := Resources(unified("memory.high", "1"), n); errkind.Of(err) != errkind.Unsupported {
			t.Errorf("unified with %s: got %v", name, err)
		}
	}
}

func TestResourcesAccepts(t *testing.T) {
	n := nodeV2()
	n.PossibleCPUs, n.PossibleMemoryNodes = "0-3", "0"
	for name, r := range map[string]*resources{
		"nothing":           nil,
		"the least":         {CpuShares: 2, CpuQuota: 1000, CpuPeriod: 1000},
		"the most":          {CpuShares: 262144, CpuQuota: -1, CpuPeriod: 1000000},
		"no limits":         {MemoryLimitInBytes: -1, MemorySwapLimitInBytes: -1, CpuQuota: -1},
		"sets":              {CpusetCpus: "0-1,3", CpusetMems: "0"},
		"a score":           {OomScoreAdj: -1000},
		"absent huge pages": hugepages("64KB", 0),
		"memory.min":        unified("memory.min", "1048576"),
		"burst":             unified("cpu.max.burst", "10000"),
		"huge pages":        unified("hugetlb.2MB.max", "0"),
	} {
		if name == "huge pages" {
			n.CgroupControllers["hugetlb"] = true
		}
		if _, err := Resources(r, n); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestUpdatedResources(t *testing.T) {
	now := &resources{
		CpuShares: 512, CpuQuota: 50000, CpuPeriod: 100000, MemoryLimitInBytes: 1 << 20, MemorySwapLimitInBytes: 2 << 20,
		OomScoreAdj: 7, CpusetCpus: "0", Unified: map[string]string{"memory.min": "1"},
		HugepageLimits: []*runtimeapi.HugepageLimit{{PageSize: "2MB", Limit: 1}},
	}
	before := proto.Clone(now)
	all, delta := UpdatedResources(now, &resources{
		CpuQuota: 20000, MemoryLimitInBytes: 3 << 19, Unified: map[string]string{"memory.high": "2"},
		HugepageLimits: []*runtimeapi.HugepageLimit{{PageSize: "2MB", Limit: 4}, {PageSize: "1GB", Limit: 5}},
	})
	wantAll := &resources{
		CpuShares: 512, CpuQuota: 20000, CpuPeriod: 100000, MemoryLimitInBytes: 3 << 19, MemorySwapLimitInBytes: 2 << 20,
		OomScoreAdj: 7, CpusetCpus: "0", Unified: map[string]string{"memory.min": "1", "memory.high": "2"},
		HugepageLimits: []*runtimeapi.HugepageLimit{{PageSize: "2MB", Limit: 4}, {PageSize: "1GB", Limit: 5}},
	}
	wantDelta := &resources{
		CpuQuota: 20000, CpuPeriod: 100000, MemoryLimitInBytes: 3 << 19, MemorySwapLimitInBytes: 2 << 20,
		Unified: map[string]string{"memory.high": "2"}, HugepageLimits: wantAll.HugepageLimits,
	}
	if !proto.Equal(all, wantAll) {
		t.Errorf("all:\ngot  %v\nwant %v", all, wantAll)
	}
	if !proto.Equal(delta, wantDelta) {
		t.Errorf("delta:\ngot  %v\nwant %v", delta, wantDelta)
	}
	if !proto.Equal(now, before) {
		t.Errorf("the argument was changed: %v", now)
	}
	if all, delta = UpdatedResources(nil, nil); !proto.Equal(all, &resources{}) || !proto.Equal(delta, &resources{}) {
		t.Errorf("of nothing: %v, %v", all, delta)
	}
	back := Restored(&resources{CpuShares: 9}, &resources{CpuShares: 3, CpuQuota: 1000, MemoryLimitInBytes: 5})
	if want := (&resources{CpuShares: 9, CpuQuota: -1, MemoryLimitInBytes: -1}); !proto.Equal(back, want) {
		t.Errorf("restored: got %v, want %v", back, want)
	}
}
