package integration

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gantry-cri/gantry/test/testenv"
)

// soakVariable says for how long TestExecSyncSoak runs, as 60s; usually 10 s.
const soakVariable = "GANTRY_TEST_SOAK"

// TestExecSyncSoak: a hundred probes a second, as far as the machine can, leave
// no process, no file, no descriptor and no memory behind.
func TestExecSyncSoak(t *testing.T) {
	limit := 10 * time.Second
	if text := os.Getenv(soakVariable); text != "" {
		var err error
		if limit, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	withContainer(t, func(t *testing.T, env *testenv.Env, container string) {
		notForPeers(t)
		probes(t, env, container, 2*time.Second) // what is made once is made
		files, memory := descriptors(t, env), resident(t, env)
		count := probes(t, env, container, limit)
		t.Logf("%d probes in %s; memory %d KiB before", count, limit, memory)
		env.Eventually("the daemon's descriptors to be closed", func() error {
			if now := descriptors(t, env); now > files {
				return fmt.Errorf("%d instead of %d", now, files)
			}
			return nil
		})
		env.Eventually("the processes to be gone", func() error {
			if out := strings.Fields(env.Exec(container, "ls -d /proc/[0-9]*")); len(out) > 4 { // two of them are this look's own
				return fmt.Errorf("left: %v", out)
			}
			return nil
		})
		// Garbage is returned in time; a leak of 1 KiB a probe would not be.
		env.Eventually("the daemon's memory to be given back", func() error {
			if now, most := resident(t, env), memory+8<<10; now > most {
				return fmt.Errorf("%d KiB, %d before", now, memory)
			}
			return nil
		})
	})
}

// probes runs them a hundred times a second and returns how many there were.
func probes(t *testing.T, env *testenv.Env, container string, limit time.Duration) int {
	t.Helper()
	var wg sync.WaitGroup
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	slots := make(chan struct{}, 8)
	count := 0
	for end := time.Now().Add(limit); time.Now().Before(end); <-tick.C {
		count++
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			resp, err := execSync(env, container, 20, "sh", "-c", "echo probe; echo err >&2; exit 3")
			if err != nil || string(resp.Stdout) != "probe\n" || string(resp.Stderr) != "err\n" || resp.ExitCode != 3 {
				t.Errorf("probe: %v, %v", resp, err)
			}
		})
	}
	wg.Wait()
	return count
}

func descriptors(t *testing.T, env *testenv.Env) int {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", env.DaemonPID()))
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// resident is the daemon's own memory in KiB: what it made itself. The pages of
// the program are not its own: a share of them counts for each daemon that other
// tests run beside it, and more for this one when those end.
func resident(t *testing.T, env *testenv.Env) int {
	t.Helper()
	for line := range strings.Lines(readProc(t, env.DaemonPID(), "smaps_rollup")) {
		if rest, ok := strings.CutPrefix(line, "Pss_Anon:"); ok {
			kib, err := strconv.Atoi(strings.Fields(rest)[0])
			if err != nil {
				t.Fatal(err)
			}
			return kib
		}
	}
	t.Fatal("no Pss_Anon of the daemon")
	return 0
}
