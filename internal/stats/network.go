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
func (p *Pod) network(s *scratch) ([]netInterface, bool) {
	if p.NetNS == "" || p.PausePID <= 0 {
		return nil, false
	}
	text, err := readFile(fmt.Sprintf("/proc/%d/net/dev", p.PausePID), &s.buf)
	if err != nil || !sameNetNS(p.NetNS, p.PausePID) {
		return nil, false
	}
	return parseNetDev(text), true
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
