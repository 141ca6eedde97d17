package crash

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// tracerVariable makes this program the tracer of a process: "PID COUNT".
const tracerVariable = "GANTRY_CRASH_TRACE"

// A tracer counts the side effects of a process, and kills it before one of them.
type tracer struct {
	cmd   *exec.Cmd
	lines *bufio.Scanner
}

// trace attaches to all threads of the process. It dies before its side effect
// number at, counted from 1; 0 is never.
func trace(t testing.TB, pid, at int) *tracer {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d %d", tracerVariable, pid, at))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	tr := &tracer{cmd, bufio.NewScanner(out)}
	if got := tr.line(); got != "ready" {
		t.Fatalf("the tracer says %q", got)
	}
	return tr
}

func (tr *tracer) line() string {
	if !tr.lines.Scan() {
		return ""
	}
	return tr.lines.Text()
}

// end lets the process go, if it is still there, and returns how many side
// effects it had, and the system call that it did not come to.
func (tr *tracer) end(t testing.TB) (count int, killedBefore string) {
	t.Helper()
	_ = tr.cmd.Process.Signal(unix.SIGTERM) // it may have ended
	last := tr.line()
	_ = tr.cmd.Wait() // what it has to say it has said
	if _, err := fmt.Sscanf(last, "%d %s", &count, &killedBefore); err != nil && count == 0 && last != "0" {
		t.Fatalf("the tracer says %q", last)
	}
	return count, killedBefore
}

// traceMain is the tracer's program.
func traceMain(task string) error {
	runtime.LockOSThread() // it is the thread that traces
	var pid, at int
	if _, err := fmt.Sscanf(task, "%d %d", &pid, &at); err != nil {
		return err
	}
	var count atomic.Int64
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, unix.SIGTERM)
	if err := seizeAll(pid); err != nil {
		return err
	}
	fmt.Println("ready")
	go func() {
		<-stop
		fmt.Println(count.Load())
		os.Exit(0) // the kernel lets the threads go
	}()
	for {
		tid, status, err := waitAny()
		if errors.Is(err, unix.ECHILD) {
			fmt.Println(count.Load())
			return nil // the process has ended by itself
		}
		if err != nil {
			return err
		}
		if !status.Stopped() {
			continue
		}
		name := ""
		if status.StopSignal() == unix.SIGTRAP|sysGood {
			name = sideEffect(tid)
		}
		if name != "" && count.Add(1) == int64(at) {
			fmt.Println(at, name) // first: who sees its death asks at once
			_ = unix.Kill(pid, unix.SIGKILL)
			return nil
		}
		resume(tid, status)
	}
}

// sysGood marks the stops at system calls (PTRACE_O_TRACESYSGOOD).
const sysGood = 0x80

// seizeAll traces every thread of the process, and those to come, but none of
// the processes that it starts.
func seizeAll(pid int) error {
	const options = unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_TRACESYSGOOD
	seized := map[int]bool{}
	for again := true; again; {
		again = false
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
		if err != nil {
			return err
		}
		for _, task := range tasks {
			tid, err := strconv.Atoi(filepath.Base(task))
			if err != nil || seized[tid] {
				continue
			}
			again = true
			seized[tid] = true
			// One that a traced thread has just made is traced already.
			if err := ptrace(unix.PTRACE_SEIZE, tid, 0, options); err != nil {
				if !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.ESRCH) {
					return fmt.Errorf("seize thread %d: %w", tid, err)
				}
				continue
			}
			if err := ptrace(unix.PTRACE_INTERRUPT, tid, 0, 0); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("interrupt thread %d: %w", tid, err)
			}
		}
	}
	return nil
}

func waitAny() (tid int, status unix.WaitStatus, err error) {
	for {
		tid, err = unix.Wait4(-1, &status, unix.WALL, nil)
		if !errors.Is(err, unix.EINTR) {
			return tid, status, err
		}
	}
}

// resume lets a thread go on to its next system call, with the signal that it
// was stopped by, if it was one.
func resume(tid int, status unix.WaitStatus) {
	sig := status.StopSignal()
	if event := int(status) >> 16; event != 0 || sig == unix.SIGTRAP|sysGood {
		sig = 0
	}
	_ = ptrace(unix.PTRACE_SYSCALL, tid, 0, uintptr(sig)) // it may have been killed
}

func ptrace(request, tid int, addr, data uintptr) error {
	if _, _, errno := unix.RawSyscall6(unix.SYS_PTRACE, uintptr(request), uintptr(tid), addr, data, 0, 0); errno != 0 {
		return errno
	}
	return nil
}

// sideEffect names the system call that a stopped thread is about to make if it
// changes anything outside of the process; else it is "".
func sideEffect(tid int) string {
	var info [88]byte // struct ptrace_syscall_info
	if ptrace(unix.PTRACE_GET_SYSCALL_INFO, tid, uintptr(len(info)), uintptr(unsafe.Pointer(&info[0]))) != nil || info[0] != unix.PTRACE_SYSCALL_INFO_ENTRY {
		return ""
	}
	nr := int(binary.NativeEndian.Uint64(info[24:]))
	arg := func(n int) int { return int(binary.NativeEndian.Uint64(info[32+8*n:])) }
	switch nr {
	case unix.SYS_OPENAT:
		if arg(2)&(unix.O_CREAT|unix.O_TRUNC) != 0 {
			return "openat"
		}
	case unix.SYS_WRITE:
		if fd, size := arg(0), arg(2); fd > 2 && size != 8 { // the log, and wake-ups of the Go runtime
			return "write"
		}
	case unix.SYS_CLONE:
		if arg(0)&unix.CLONE_THREAD == 0 {
			return "clone"
		}
	}
	return changes[nr]
}

// changes are the system calls that always are side effects.
var changes = map[int]string{
	unix.SYS_CLONE3: "clone3", unix.SYS_MKDIRAT: "mkdirat", unix.SYS_UNLINKAT: "unlinkat", unix.SYS_RENAMEAT: "renameat",
	unix.SYS_RENAMEAT2: "renameat2", unix.SYS_LINKAT: "linkat", unix.SYS_SYMLINKAT: "symlinkat", unix.SYS_MKNODAT: "mknodat",
	unix.SYS_MOUNT: "mount", unix.SYS_UMOUNT2: "umount2", unix.SYS_MOVE_MOUNT: "move_mount", unix.SYS_MOUNT_SETATTR: "mount_setattr",
	unix.SYS_SETXATTR: "setxattr", unix.SYS_FCHMODAT: "fchmodat", unix.SYS_FCHOWNAT: "fchownat", unix.SYS_FTRUNCATE: "ftruncate",
	unix.SYS_KILL: "kill", unix.SYS_PIDFD_SEND_SIGNAL: "pidfd_send_signal", unix.SYS_CONNECT: "connect", unix.SYS_BIND: "bind",
	unix.SYS_SENDTO: "sendto", unix.SYS_SENDMSG: "sendmsg", unix.SYS_UNSHARE: "unshare", unix.SYS_SETNS: "setns",
	unix.SYS_PWRITE64: "pwrite64", unix.SYS_FSYNC: "fsync", unix.SYS_SYNCFS: "syncfs",
}

// TestTracer: a process is killed before the side effect that was named, and
// not before another.
func TestTracer(t *testing.T) {
	dir := t.TempDir()
	script := fmt.Sprintf("read go; for i in 1 2 3 4 5; do mkdir %s/$i; done; echo done; read end", dir)
	run := func(at int) (made, count int, before string) {
		// Busybox's shell makes directories by itself, as a thread of a daemon would.
		cmd := exec.Command("busybox", "sh", "-c", script)
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		tr := trace(t, cmd.Process.Pid, at)
		fmt.Fprintln(in)
		_, _ = bufio.NewReader(out).ReadString('\n') // "done", or the end of a killed one
		count, before = tr.end(t)
		in.Close()
		_ = cmd.Wait() // it was killed, or has ended
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				t.Fatal(err)
			}
		}
		return len(entries), count, before
	}
	made, all, before := run(0)
	if made != 5 || all < 5 || before != "" {
		t.Fatalf("never: %d directories, %d side effects, %q", made, all, before)
	}
	for at := 1; at <= all; at++ {
		made, count, before := run(at)
		if made >= 5 && !strings.Contains(before, "write") || count != at || before == "" {
			t.Errorf("before side effect %d: %d directories, %d side effects, %q", at, made, count, before)
		}
	}
}
