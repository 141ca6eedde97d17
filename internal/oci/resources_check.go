package oci

import (
	"math"
	"strconv"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/internal/node"
)

// What the kernel accepts: shares from kernel/sched/sched.h, quota and period
// (in microseconds) from kernel/sched/core.c, scores from proc_pid_oom_score_adj(5).
const (
	minShares, maxShares = 2, 262144
	minQuota             = 1000
	minPeriod, maxPeriod = 1000, 1000000
	maxOOMScore          = 1000
	unlimited            = -1
)

// CheckResources refuses values that make no sense on any node, with an error
// of kind Invalid. nil is fine.
func CheckResources(r *runtimeapi.LinuxContainerResources) error {
	for _, check := range []func(*runtimeapi.LinuxContainerResources) error{
		checkCPU, checkMemory, checkHugepages, checkUnified,
	} {
		if err := check(r); err != nil {
			return err
		}
	}
	if score := r.GetOomScoreAdj(); score < -maxOOMScore || score > maxOOMScore {
		return invalid("resources: oom_score_adj %d is not between %d and %d", score, -maxOOMScore, maxOOMScore)
	}
	return nil
}

func checkCPU(r *runtimeapi.LinuxContainerResources) error {
	shares, quota, period := r.GetCpuShares(), r.GetCpuQuota(), r.GetCpuPeriod()
	switch {
	case shares < 0 || period < 0:
		return invalid("resources: negative cpu_shares %d or cpu_period %d", shares, period)
	case shares != 0 && (shares < minShares || shares > maxShares):
		return invalid("resources: cpu_shares %d is not between %d and %d", shares, minShares, maxShares)
	case period != 0 && (period < minPeriod || period > maxPeriod):
		return invalid("resources: cpu_period %d is not between %d and %d microseconds", period, minPeriod, maxPeriod)
	case quota != 0 && quota != unlimited && quota < minQuota:
		return invalid("resources: cpu_quota %d is neither -1 (no limit) nor at least %d microseconds", quota, minQuota)
	}
	for field, list := range map[string]string{"cpuset_cpus": r.GetCpusetCpus(), "cpuset_mems": r.GetCpusetMems()} {
		if _, err := parseList(list); list != "" && err != nil {
			return invalid("resources: %s %q: %w", field, list, err)
		}
	}
	return nil
}

func checkMemory(r *runtimeapi.LinuxContainerResources) error {
	limit, swap := r.GetMemoryLimitInBytes(), r.GetMemorySwapLimitInBytes()
	switch {
	case limit < unlimited:
		return invalid("resources: negative memory_limit_in_bytes %d (-1 stands for no limit)", limit)
	case swap < unlimited:
		return invalid("resources: negative memory_swap_limit_in_bytes %d (-1 stands for no limit)", swap)
	case swap > 0 && limit > 0 && swap < limit:
		return invalid("resources: memory_swap_limit_in_bytes %d is less than memory_limit_in_bytes %d, which it includes", swap, limit)
	}
	return nil
}

// checkHugepages refuses what is no page size. A size that a node lacks is
// another matter: see hugepageLimits.
func checkHugepages(r *runtimeapi.LinuxContainerResources) error {
	seen := make(map[string]bool)
	for _, l := range r.GetHugepageLimits() {
		size := l.GetPageSize()
		number, unit := strings.TrimRight(size, "KMGB"), strings.TrimLeft(size, "0123456789")
		if n, err := strconv.ParseUint(number, 10, 32); err != nil || n == 0 || (unit != "KB" && unit != "MB" && unit != "GB") {
			return invalid("resources: hugepage_limits: %q is no page size such as 2MB", size)
		}
		if seen[size] {
			return invalid("resources: hugepage_limits: two limits for page size %s", size)
		}
		seen[size] = true
	}
	return nil
}

// checkUnified refuses keys that are not files of a controller. The files that
// begin with "cgroup." are how the runtime and the daemon keep hold of the
// container: no limits.
func checkUnified(r *runtimeapi.LinuxContainerResources) error {
	for key, value := range r.GetUnified() {
		controller, file, ok := strings.Cut(key, ".")
		if !ok || controller == "" || file == "" || strings.ContainsFunc(key, notInFileName) || strings.Contains(key, "..") {
			return invalid("resources: unified: %q is no file of a cgroup controller", key)
		}
		if controller == "cgroup" {
			return invalid("resources: unified: %s is no limit: it belongs to the runtime", key)
		}
		if strings.TrimSpace(value) == "" || strings.ContainsRune(value, 0) {
			return invalid("resources: unified: %s: %q is no value", key, value)
		}
	}
	return nil
}

func notInFileName(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '.' && r != '_' && r != '-'
}

// checkCpuset refuses CPUs and memory nodes that this node can never have.
// What is there but offline, or not the parent cgroup's, the kernel refuses.
func checkCpuset(r *runtimeapi.LinuxContainerResources, n node.Facts) error {
	for _, c := range []struct{ field, asked, possible string }{
		{"cpuset_cpus", r.GetCpusetCpus(), n.PossibleCPUs},
		{"cpuset_mems", r.GetCpusetMems(), n.PossibleMemoryNodes},
	} {
		if c.asked == "" || c.possible == "" {
			continue
		}
		asked, err := parseList(c.asked)
		if err != nil {
			return invalid("resources: %s %q: %w", c.field, c.asked, err)
		}
		possible, err := parseList(c.possible)
		if err == nil && !within(asked, possible) {
			return invalid("resources: %s %q: this node has %s only", c.field, c.asked, c.possible)
		}
	}
	return nil
}

// span is a range of CPUs or memory nodes, both ends included.
type span struct{ first, last uint64 }

// parseList reads the kernel's list format: 0-3,5 (cpuset(7)).
func parseList(list string) ([]span, error) {
	var spans []span
	for _, part := range strings.Split(strings.TrimSuffix(list, "\n"), ",") {
		from, to, isRange := strings.Cut(part, "-")
		if !isRange {
			to = from
		}
		first, err := strconv.ParseUint(from, 10, 16)
		if err != nil {
			return nil, invalid("%q is no number and no range", part)
		}
		last, err := strconv.ParseUint(to, 10, 16)
		if err != nil || last < first {
			return nil, invalid("%q is no number and no range", part)
		}
		spans = append(spans, span{first, last})
	}
	return spans, nil
}

// within reports whether every number of asked is in possible, whose spans are
// sorted and apart, as the kernel prints them.
func within(asked, possible []span) bool {
	for _, a := range asked {
		ok := false
		for _, p := range possible {
			ok = ok || a.first >= p.first && a.last <= p.last
		}
		if !ok {
			return false
		}
	}
	return true
}

// forbidsNothing reports whether a limit of huge pages asks for nothing where
// there are none: the kubelet sends 0 for every size that it knows of.
func forbidsNothing(l *runtimeapi.HugepageLimit) bool {
	return l.GetLimit() == 0 || l.GetLimit() == math.MaxUint64
}
