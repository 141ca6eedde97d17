package stats

import (
	"bytes"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// device is a block device's number.
type device struct{ major, minor uint32 }

func deviceOf(dev uint64) device { return device{unix.Major(dev), unix.Minor(dev)} }

// parseDevice reads "MAJOR:MINOR".
func parseDevice(text []byte) (device, bool) {
	major, minor, _ := bytes.Cut(text, []byte{':'})
	a, ok := number(major)
	b, ok2 := number(minor)
	return device{uint32(a), uint32(b)}, ok && ok2
}

// deviceNames remembers the names of block devices.
type deviceNames struct {
	mu    sync.Mutex // guards known
	known map[device]string
}

// name is the device's file, as in /dev/sda; its number where it has none, as
// the devices of file systems without a disk.
func (d *deviceNames) name(dev device) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	name, ok := d.known[dev]
	if !ok {
		name = lookUpDevice(dev)
		d.known[dev] = name
	}
	return name
}

func lookUpDevice(dev device) string {
	var buf []byte
	text, err := readFile(fmt.Sprintf("/sys/dev/block/%d:%d/uevent", dev.major, dev.minor), &buf)
	for err == nil && len(text) > 0 {
		var line []byte
		line, text = cutLine(text)
		if name, ok := bytes.CutPrefix(line, []byte("DEVNAME=")); ok {
			return "/dev/" + string(name)
		}
	}
	return fmt.Sprintf("%d:%d", dev.major, dev.minor)
}
