package oci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"

	rspec "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// UpdatedResources applies an update to the limits that hold now. What the
// update does not specify (0, "") stays. all is every limit afterwards; delta
// is what has to be set for it: the update's own fields, with what belongs
// together completed from the others (quota and period, memory and swap).
// Neither argument is changed; each may be nil.
func UpdatedResources(now, update *runtimeapi.LinuxContainerResources) (all, delta *runtimeapi.LinuxContainerResources) {
	all, delta = clone(now), clone(update)
	override(&all.CpuShares, update.GetCpuShares())
	override(&all.CpuPeriod, update.GetCpuPeriod())
	override(&all.CpuQuota, update.GetCpuQuota())
	override(&all.MemoryLimitInBytes, update.GetMemoryLimitInBytes())
	override(&all.MemorySwapLimitInBytes, update.GetMemorySwapLimitInBytes())
	override(&all.OomScoreAdj, update.GetOomScoreAdj())
	override(&all.CpusetCpus, update.GetCpusetCpus())
	override(&all.CpusetMems, update.GetCpusetMems())
	all.HugepageLimits = overrideHugepages(all.HugepageLimits, update.GetHugepageLimits())
	if len(update.GetUnified()) > 0 {
		all.Unified = maps.Clone(all.Unified)
		if all.Unified == nil {
			all.Unified = make(map[string]string)
		}
		maps.Copy(all.Unified, update.GetUnified())
	}
	if delta.CpuQuota != 0 || delta.CpuPeriod != 0 {
		delta.CpuQuota, delta.CpuPeriod = all.CpuQuota, all.CpuPeriod
	}
	if delta.MemoryLimitInBytes != 0 || delta.MemorySwapLimitInBytes != 0 {
		delta.MemoryLimitInBytes, delta.MemorySwapLimitInBytes = all.MemoryLimitInBytes, all.MemorySwapLimitInBytes
	}
	return all, delta
}

func clone(r *runtimeapi.LinuxContainerResources) *runtimeapi.LinuxContainerResources {
	if r == nil {
		return &runtimeapi.LinuxContainerResources{}
	}
	return proto.Clone(r).(*runtimeapi.LinuxContainerResources)
}

// override replaces what is at by v, unless that is its zero value.
func override[T comparable](at *T, v T) {
	var zero T
	if v != zero {
		*at = v
	}
}

func overrideHugepages(now, update []*runtimeapi.HugepageLimit) []*runtimeapi.HugepageLimit {
	for _, l := range update {
		known := false
		for i := range now {
			if now[i].GetPageSize() == l.GetPageSize() {
				now[i], known = l, true
			}
		}
		if !known {
			now = append(now, l)
		}
	}
	return now
}

// Restored returns the limits that take back an update from now: those of now,
// and no limit for what the update (as delta of UpdatedResources) set anew. It
// is for runtimes whose cgroups can't be read: a CPU set that was not
// restricted before can't be told from here, and stays.
func Restored(now, delta *runtimeapi.LinuxContainerResources) *runtimeapi.LinuxContainerResources {
	const defaultShares, defaultPeriod = 1024, 100000
	back, _ := UpdatedResources(now, nil)
	if back.CpuShares == 0 && delta.GetCpuShares() != 0 {
		back.CpuShares = defaultShares
	}
	if back.CpuPeriod == 0 && delta.GetCpuPeriod() != 0 {
		back.CpuPeriod = defaultPeriod
	}
	if back.CpuQuota == 0 && delta.GetCpuQuota() != 0 {
		back.CpuQuota = unlimited
	}
	if back.MemoryLimitInBytes == 0 && delta.GetMemoryLimitInBytes() != 0 {
		back.MemoryLimitInBytes = unlimited
	}
	return back
}

// Update sets limits of a container that was created or runs: RUNTIME update.
// What r does not specify stays. dir is an existing directory for the file by
// which the runtime is told. The kinds of the error are those of Kill.
func (r *Runtime) Update(ctx context.Context, id, dir string, limits *rspec.LinuxResources) (err error) {
	body, err := json.Marshal(limits)
	if err != nil {
		return fmt.Errorf("update container %s: %w", id, err)
	}
	file := filepath.Join(dir, "update.json")
	if err := os.WriteFile(file, body, 0o600); err != nil {
		return fmt.Errorf("update container %s: %w", id, err)
	}
	defer func() { err = errors.Join(err, os.Remove(file)) }()
	_, err = r.command(ctx, "update", "--resources", file, id)
	return r.explain(ctx, id, err)
}
