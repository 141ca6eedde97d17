package stats

import (
	"bytes"
	"fmt"

	"golang.org/x/sys/unix"
)

// netInterface is one interface's counters.
type netInterface struct {
	name                                    string
	rxBytes, rxPackets, rxErrors, rxDropped uint64
	txBytes, txPackets, txErrors, txDropped uint64
}

// network reads the interfaces of a pod's network namespace, the loopback one
// left out, through the proc directory of the pause container's process: the
// kernel writes that file without taking a lock, while a netlink socket would
// wait for every interface that is being made on the node. A pod on the node's
// network, or whose pause container has ended, has none.
func (c *Collector) network(p *Pod, s *scratch) ([]netInterface, bool) {
	if p.NetNS == "" || p.PausePID <= 0 || len(p.Parts) == 0 {
		return nil, false
	}
	g := c.group(p.Parts[0])
	g.mu.Lock()
	defer g.mu.Unlock()
	dir := g.net
	if dir == 0 {
		var err error
		if dir, err = openNet(p); err != nil {
			return nil, false
		}
		if !g.closed && c.fds.take() {
			g.net = dir
		} else {
			defer unix.Close(dir)
		}
	}
	text, err := readFileAt(dir, "dev", &s.buf)
	if err != nil {
		g.dropLocked(&c.fds) // the pause container has ended
		return nil, false
	}
	return parseNetDev(text), true
}

// openNet opens the directory in which the pause container's process shows its
// network. It belongs to the process, whoever gets its PID later, and holds
// neither the process nor the namespace: what is kept open must be no file in it.
func openNet(p *Pod) (int, error) {
	dir, err := unix.Open(fmt.Sprintf("/proc/%d/net/", p.PausePID), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, absent(err)
	}
	if !sameNetNS(p.NetNS, p.PausePID) {
		unix.Close(dir) //nolint:errcheck // opened for looking up only
		return 0, errAbsent
	}
	return dir, nil
}

// sameNetNS tells whether the process is in the namespace pinned at path: its
// PID may be another process's by now.
func sameNetNS(path string, pid int) bool {
	var pinned, seen unix.Stat_t
	if unix.Stat(path, &pinned) != nil || unix.Stat(fmt.Sprintf("/proc/%d/ns/net", pid), &seen) != nil {
		return false
	}
	return pinned.Ino == seen.Ino && pinned.Dev == seen.Dev
}

// parseNetDev reads /proc/net/dev: two lines of titles, then
// "NAME: 8 figures received 8 figures sent".
func parseNetDev(text []byte) []netInterface {
	var out []netInterface
	for len(text) > 0 {
		var line []byte
		line, text = cutLine(text)
		name, rest, ok := bytes.Cut(line, []byte{':'})
		name = bytes.TrimSpace(name)
		if !ok || string(name) == "lo" {
			continue
		}
		var n [16]uint64
		fields := 0
		for field := range bytes.FieldsSeq(rest) {
			if fields < len(n) {
				n[fields], _ = number(field)
			}
			fields++
		}
		if fields < 12 {
			continue
		}
		out = append(out, netInterface{
			name:    string(name),
			rxBytes: n[0], rxPackets: n[1], rxErrors: n[2], rxDropped: n[3],
			txBytes: n[8], txPackets: n[9], txErrors: n[10], txDropped: n[11],
		})
	}
	return out
}
