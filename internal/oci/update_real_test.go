package oci

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/gantry-cri/gantry/internal/cgroup"
	"github.com/gantry-cri/gantry/internal/errkind"
	"github.com/gantry-cri/gantry/internal/id"
)

// TestUpdate: RUNTIME update sets what it is told and leaves the rest, just as
// writing the files does.
func TestUpdate(t *testing.T) {
	for _, name := range runtimes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := startContainer(t, openRuntime(t, name), "sleep", "1000")
			limits, err := Resources(&resources{CpuQuota: 30000, CpuPeriod: 100000, MemoryLimitInBytes: 64 << 20}, c.node)
			if err != nil {
				t.Fatal(err)
			}
			wanted := func() (old, want []string) {
				change, err := cgroup.Limits(c.node, c.cgroup, limits, 0)
				if err != nil {
					t.Fatal(err)
				}
				for _, w := range change {
					old, want = append(old, w.File+"="+w.Old), append(want, w.File+"="+w.New)
				}
				return old, want
			}
			start := time.Now()
			if err := c.r.Update(t.Context(), c.id, c.dir, limits); err != nil {
				t.Fatal(err)
			}
			byRuntime := time.Since(start)
			if got, want := wanted(); !slices.Equal(got, want) {
				t.Errorf("got  %q\nwant %q", got, want)
			}
			start = time.Now()
			change, err := cgroup.Limits(c.node, c.cgroup, limits, 0)
			if err == nil {
				err = change.Apply()
			}
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("by %s update: %s; by the cgroup's files: %s", name, byRuntime, time.Since(start))
			if _, err := os.Stat(filepath.Join(c.dir, "update.json")); !os.IsNotExist(err) {
				t.Errorf("the file for the runtime is left: %v", err)
			}
			if err := c.r.Update(t.Context(), string(id.NewContainer()), c.dir, limits); errkind.Of(err) != errkind.NotFound {
				t.Errorf("a container that does not exist: %v", err)
			}
		})
	}
}
