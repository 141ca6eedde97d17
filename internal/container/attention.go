package container

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// attention is which signals a process would notice, and what it executes. The
// zero value is that of no process.
type attention struct {
	noticed uint64 // bit n-1 for signal n: a handler is installed, or the signal is blocked, which keeps it
	program string // changes with execve, which removes all handlers
}

// attentionOf reads /proc; a process that is not there notices nothing.
func attentionOf(pid int) attention {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return attention{}
	}
	return attention{noticed: signalMask(string(status), "SigCgt") | signalMask(string(status), "SigBlk"), program: programOf(pid)}
}

// programOf is the path of what a process executes; "" of no process.
func programOf(pid int) string {
	program, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		return ""
	}
	return program
}

// signalMask is the mask of that name in a /proc/PID/status; 0 if there is none.
func signalMask(status, name string) uint64 {
	_, rest, _ := strings.Cut(status, "\n"+name+":")
	line, _, _ := strings.Cut(rest, "\n")
	mask, err := strconv.ParseUint(strings.TrimSpace(line), 16, 64)
	if err != nil {
		return 0
	}
	return mask
}

func (a attention) gets(sig unix.Signal) bool { return a.noticed>>(uint(sig)-1)&1 == 1 }
