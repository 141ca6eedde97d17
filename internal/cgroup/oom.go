package cgroup

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gantry-cri/gantry/internal/node"
)

// SetOOMScore gives the processes of the cgroup that have the OOM score former
// the score next. A process that was given another one keeps it. Processes that
// are forked meanwhile inherit the score, so it looks until it finds none.
func SetOOMScore(f node.Facts, path string, former, next int) error {
	if former == next {
		return nil
	}
	const rounds = 10 // a process that forks in a loop is not chased for ever
	for range rounds {
		pids, err := Procs(f, path)
		if err != nil {
			return err
		}
		changed := false
		for _, pid := range pids {
			done, err := setOOMScore(pid, former, next)
			if err != nil {
				return fmt.Errorf("OOM score of cgroup %s: %w", path, err)
			}
			changed = changed || done
		}
		if !changed {
			return nil
		}
	}
	return nil
}

// setOOMScore reports whether the process had the score former. One that is
// gone had none.
func setOOMScore(pid, former, next int) (bool, error) {
	file := fmt.Sprintf("/proc/%d/oom_score_adj", pid)
	text, err := os.ReadFile(file)
	if gone(err) || errors.Is(err, unix.ESRCH) {
		return false, nil
	}
	if err != nil || strings.TrimSpace(string(text)) != strconv.Itoa(former) {
		return false, err
	}
	err = os.WriteFile(file, []byte(strconv.Itoa(next)), 0)
	if gone(err) || errors.Is(err, unix.ESRCH) {
		return false, nil
	}
	return err == nil, err
}
