package stats

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// details is what the sampler reads of a container: what would be too dear for
// a request, or what hardly changes. A sample is never changed after it was
// published.
type details struct {
	at time.Time

	processes         uint64
	threads           uint64
	threadsMax        uint64
	threadsLimited    bool
	files, sockets    uint64
	states            [stateCount]uint64 // of threads
	complete          bool               // files, sockets and states are known
	openFiles         uint64             // soft limit of the init
	openFilesLimited  bool
	user, system      uint64 // nanoseconds
	periods           uint64
	throttled         uint64 // periods
	throttledTime     uint64 // nanoseconds
	period, quota     uint64 // microseconds
	quotaSet          bool
	shares            uint64
	limit, swapLimit  uint64 // bytes; 0 is none
	reservation, peak uint64 // bytes
	failures          uint64 // allocations that met the limit
	slowed            uint64 // times that its use was above memory.high; 0 on version 1
	oomKills          uint64
	io                []blockIO
}

// States of threads, as the labels name them.
const (
	running = iota
	sleeping
	stopped
	uninterruptible
	stateCount
)

var stateNames = [stateCount]string{"running", "sleeping", "stopped", "uninterruptible"}

// Bounds on what is looked at of one container at a time: what is beyond is
// not worth its price, and then not told.
const (
	processesMax = 512
	threadsMost  = 4096
	filesMax     = 8192
)

// sampleDetails reads a container's details; nil when it is gone.
func (c *Collector) sampleDetails(ctr *Container, s *scratch) *details {
	g := c.group(ctr.Cgroup)
	d := &details{at: time.Now()}
	var ok bool
	if d.processes, ok = c.countProcesses(ctr.Cgroup, s); !ok {
		return nil
	}
	c.readLimits(g, d, s)
	if ctr.Tell != nil { // nothing else is in this cgroup
		return d
	}
	if c.opts.Node.CgroupV2 {
		c.readTimesV2(g, d, s)
	} else {
		c.readTimesV1(g, d, s)
	}
	c.readEvents(g, d, s)
	d.io = c.blockIO(g, s)
	pids, all := c.pids(ctr.Cgroup, processesMax, s)
	d.complete = all && d.lookAt(pids, s)
	d.openFiles, d.openFilesLimited = openFilesLimit(ctr.PID, s)
	return d
}

// one reads a file that holds one number.
func (c *Collector) one(g *group, f file, s *scratch) (uint64, bool) {
	text, err := c.readLocked(g, f, &s.buf)
	if err != nil {
		return 0, false
	}
	return limit(text)
}

func (c *Collector) readLimits(g *group, d *details, s *scratch) {
	if text, err := readFile(c.sources[tasksNow].file(g.path), &s.buf); err == nil {
		d.threads, _ = number(text)
	}
	d.threadsMax, d.threadsLimited = c.one(g, tasksMax, s)
	d.peak, _ = c.one(g, memoryPeak, s)
	d.reservation, _ = c.one(g, memoryReservation, s)
	if text, err := readFile(c.sources[memoryLimit].file(g.path), &s.buf); err == nil {
		d.limit, _ = limit(text)
	}
	d.swapLimit, _ = c.one(g, swapLimit, s)
	if !c.opts.Node.CgroupV2 {
		d.period, _ = c.one(g, cpuPeriod, s)
		d.quota, d.quotaSet = c.one(g, cpuQuota, s) // -1 is none
		d.shares, _ = c.one(g, cpuShares, s)
		return
	}
	if text, err := c.readLocked(g, cpuPeriod, &s.buf); err == nil { // "QUOTA PERIOD"
		quota, period, _ := bytes.Cut(text, []byte{' '})
		d.quota, d.quotaSet = number(quota)
		d.period, _ = number(period)
	}
	if weight, ok := c.one(g, cpuShares, s); ok {
		d.shares = sharesOf(weight)
	}
}

// sharesOf turns a version 2 weight (1 to 10000) into shares (2 to 262144), by
// the inverse of the usual linear conversion.
func sharesOf(weight uint64) uint64 { return 2 + (sub(weight, 1)*262142)/9999 }

// tick is what cpuacct.stat counts in: 1/100 s.
const tick = uint64(10 * time.Millisecond)

func (c *Collector) readTimesV1(g *group, d *details, s *scratch) {
	if text, err := c.readLocked(g, cpuTimes, &s.buf); err == nil {
		pairs(text, func(key []byte, n uint64) {
			switch string(key) {
			case "user":
				d.user = n * tick
			case "system":
				d.system = n * tick
			}
		})
	}
	if text, err := c.readLocked(g, cpuThrottling, &s.buf); err == nil {
		pairs(text, d.throttling)
	}
	d.failures, _ = c.one(g, memoryFailures, s)
}

func (c *Collector) readTimesV2(g *group, d *details, s *scratch) {
	text, err := readFile(c.sources[cpuUsage].file(g.path), &s.buf)
	if err != nil {
		return
	}
	pairs(text, func(key []byte, n uint64) {
		switch string(key) {
		case "user_usec":
			d.user = n * 1000
		case "system_usec":
			d.system = n * 1000
		default:
			d.throttling(key, n)
		}
	})
}

// throttling takes a line of cpu.stat, of either version.
func (d *details) throttling(key []byte, n uint64) {
	switch string(key) {
	case "nr_periods":
		d.periods = n
	case "nr_throttled":
		d.throttled = n
	case "throttled_time":
		d.throttledTime = n
	case "throttled_usec":
		d.throttledTime = n * 1000
	}
}

func (c *Collector) readEvents(g *group, d *details, s *scratch) {
	text, err := c.readLocked(g, memoryEvents, &s.buf)
	if err != nil {
		return
	}
	pairs(text, func(key []byte, n uint64) {
		switch string(key) {
		case "oom_kill":
			d.oomKills = n
		case "high":
			d.slowed = n
		case "max": // version 2's place for failures
			d.failures = n
		}
	})
}

// lookAt counts the open files, the sockets and the states of the threads of
// processes; false when there are too many. A process that has ended counts
// nothing.
func (d *details) lookAt(pids []int, s *scratch) bool {
	threads := 0
	for _, pid := range pids {
		tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		if err != nil {
			continue
		}
		if threads += len(tasks); threads > threadsMost {
			return false
		}
		for _, task := range tasks {
			d.addState(fmt.Sprintf("/proc/%d/task/%s/stat", pid, task.Name()), s)
		}
		if !d.addFiles(fmt.Sprintf("/proc/%d/fd", pid)) {
			return false
		}
	}
	return true
}

// addState counts the state of the thread whose stat file this is: the letter
// after the name, which is in brackets and may hold any.
func (d *details) addState(stat string, s *scratch) {
	text, err := readFile(stat, &s.buf)
	if err != nil {
		return
	}
	i := bytes.LastIndexByte(text, ')')
	if i < 0 || i+2 >= len(text) {
		return
	}
	switch text[i+2] {
	case 'R':
		d.states[running]++
	case 'S', 'I':
		d.states[sleeping]++
	case 'T', 't':
		d.states[stopped]++
	case 'D':
		d.states[uninterruptible]++
	}
}

func (d *details) addFiles(dir string) bool {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return true
	}
	if d.files += uint64(len(entries)); d.files > filesMax {
		return false
	}
	var target [16]byte
	for _, e := range entries {
		n, err := unix.Readlink(dir+"/"+e.Name(), target[:])
		if err == nil && strings.HasPrefix(string(target[:n]), "socket:") {
			d.sockets++
		}
	}
	return true
}

// openFilesLimit is the soft limit of open files of a process; false where it
// is unlimited or the process has ended.
func openFilesLimit(pid int, s *scratch) (uint64, bool) {
	if pid <= 0 {
		return 0, false
	}
	text, err := readFile(fmt.Sprintf("/proc/%d/limits", pid), &s.buf)
	for err == nil && len(text) > 0 {
		var line []byte
		line, text = cutLine(text)
		if rest, ok := bytes.CutPrefix(line, []byte("Max open files")); ok {
			for soft := range bytes.FieldsSeq(rest) {
				return number(soft)
			}
		}
	}
	return 0, false
}
