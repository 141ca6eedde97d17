package stats

import (
	"bytes"
	"cmp"
	"slices"
)

// blockIO is what a cgroup has read from and written to a block device.
type blockIO struct {
	device                device
	readBytes, writeBytes uint64
	reads, writes         uint64
}

// blockIO reads the devices that the cgroup has used.
func (c *Collector) blockIO(g *group, s *scratch) []blockIO {
	found := make(map[device]*blockIO)
	at := func(d device) *blockIO {
		if found[d] == nil {
			found[d] = &blockIO{device: d}
		}
		return found[d]
	}
	if text, err := c.readLocked(g, ioBytes, &s.buf); err == nil {
		if c.opts.Node.CgroupV2 {
			parseIOStat(text, at)
		} else {
			parseBlkio(text, func(d device, operation string, n uint64) { at(d).addBytes(operation, n) })
		}
	}
	if text, err := c.readLocked(g, ioOperations, &s.buf); err == nil {
		parseBlkio(text, func(d device, operation string, n uint64) { at(d).addOperations(operation, n) })
	}
	out := make([]blockIO, 0, len(found))
	for _, b := range found {
		out = append(out, *b)
	}
	slices.SortFunc(out, func(a, b blockIO) int {
		return cmp.Or(cmp.Compare(a.device.major, b.device.major), cmp.Compare(a.device.minor, b.device.minor))
	})
	return out
}

func (b *blockIO) addBytes(operation string, n uint64) {
	switch operation {
	case "Read":
		b.readBytes += n
	case "Write":
		b.writeBytes += n
	}
}

func (b *blockIO) addOperations(operation string, n uint64) {
	switch operation {
	case "Read":
		b.reads += n
	case "Write":
		b.writes += n
	}
}

// parseBlkio reads version 1's lines "MAJOR:MINOR Operation N"; the last line,
// "Total N", is of no device.
func parseBlkio(text []byte, do func(d device, operation string, n uint64)) {
	for len(text) > 0 {
		var line []byte
		line, text = cutLine(text)
		fields := bytes.Fields(line)
		if len(fields) != 3 {
			continue
		}
		d, ok := parseDevice(fields[0])
		n, ok2 := number(fields[2])
		if ok && ok2 {
			do(d, string(fields[1]), n)
		}
	}
}

// parseIOStat reads version 2's lines "MAJOR:MINOR rbytes=N wbytes=N rios=N wios=N …".
func parseIOStat(text []byte, at func(device) *blockIO) {
	for len(text) > 0 {
		var line []byte
		line, text = cutLine(text)
		fields := bytes.Fields(line)
		if len(fields) < 2 {
			continue
		}
		d, ok := parseDevice(fields[0])
		if !ok {
			continue
		}
		b := at(d)
		for _, field := range fields[1:] {
			key, text, _ := bytes.Cut(field, []byte{'='})
			n, _ := number(text)
			switch string(key) {
			case "rbytes":
				b.readBytes = n
			case "wbytes":
				b.writeBytes = n
			case "rios":
				b.reads = n
			case "wios":
				b.writes = n
			}
		}
	}
}
