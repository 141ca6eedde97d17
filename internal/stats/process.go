package stats

import (
	"bytes"
	"os"

	"golang.org/x/sys/unix"
)

// tasks counts the tasks of a cgroup and of those below it.
func (c *Collector) tasks(cgroup string, s *scratch) (uint64, bool) {
	g := c.group(cgroup)
	g.mu.Lock()
	defer g.mu.Unlock()
	text, err := c.readLocked(g, tasksNow, &s.buf)
	if err != nil {
		return 0, false
	}
	return number(text)
}

// countProcesses counts the processes of a cgroup and of those below it, which
// a container that manages cgroups can have. false when the cgroup is gone.
func (c *Collector) countProcesses(cgroup string, s *scratch) (uint64, bool) {
	n := uint64(0)
	ok := c.eachCgroup(c.sources[procs].dir(cgroup), depthMax, s, func(list []byte) {
		n += uint64(bytes.Count(list, []byte{'\n'}))
	})
	return n, ok
}

// depthMax bounds how deep cgroups below a container's are looked into.
const depthMax = 8

// eachCgroup calls do with the list of processes of the cgroup in dir, and of
// each below it.
func (c *Collector) eachCgroup(dir string, depth int, s *scratch, do func(list []byte)) bool {
	list, err := readFile(dir+"/"+c.sources[procs].name, &s.buf)
	if err != nil {
		return false
	}
	do(list)
	if depth == 0 || !hasChildren(dir) {
		return true
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return true
	}
	for _, e := range entries {
		if e.IsDir() {
			c.eachCgroup(dir+"/"+e.Name(), depth-1, s, do)
		}
	}
	return true
}

// hasChildren tells by a cgroup directory's links, of which it has two of its
// own and one from each cgroup below it.
func hasChildren(dir string) bool {
	var st unix.Stat_t
	return unix.Stat(dir, &st) == nil && st.Nlink > 2
}

// pids lists the processes of a cgroup and of those below it, no more than
// most; false when there are more.
func (c *Collector) pids(cgroup string, most int, s *scratch) ([]int, bool) {
	var pids []int
	all := true
	c.eachCgroup(c.sources[procs].dir(cgroup), depthMax, s, func(list []byte) {
		for len(list) > 0 {
			var line []byte
			line, list = cutLine(list)
			pid, ok := number(line)
			switch {
			case !ok || pid == 0: // of another PID namespace, out of reach
			case len(pids) == most:
				all = false
			default:
				pids = append(pids, int(pid))
			}
		}
	})
	return pids, all
}
