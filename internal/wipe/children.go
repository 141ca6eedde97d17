package wipe

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// EndChildren kills what this process has started and given up: commands of
// runtimes that hang. They lead process groups of their own, and would outlive
// it. One may be about to start, so it looks for a moment longer.
func EndChildren() {
	const quiet, atMost = 50 * time.Millisecond, time.Second
	self := os.Getpid()
	begin := time.Now()
	for seen := begin; time.Since(seen) < quiet && time.Since(begin) < atMost; time.Sleep(time.Millisecond) {
		children, err := processes("/proc", func(proc string) bool { return parentOf(proc) == self })
		if err != nil {
			return
		}
		for _, pid := range children {
			seen = time.Now()
			_ = unix.Kill(-pid, unix.SIGKILL) // it has ended, or leads no group yet: then once more
		}
	}
}
