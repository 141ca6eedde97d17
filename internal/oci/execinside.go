package oci

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// insideTimeout bounds the killing of an exec's processes inside a sandbox,
// where each look and each signal is a command of the runtime.
const insideTimeout = 10 * time.Second

// insideExec is an exec whose process is inside a sandbox. What runs on the
// node for it merely waits, and is not missed by the process when it ends. A nil
// pointer stands for an exec without such a process.
type insideExec struct {
	runtime   *Runtime
	container string
	pidFile   string // where the runtime writes the process's PID inside the sandbox
}

// helperArgs tell execwait how to kill the process.
func (e *insideExec) helperArgs() []string {
	if e == nil {
		return nil
	}
	kill := e.runtime.argv("kill", "--pgid=", e.container, "KILL")
	return append([]string{"-k", e.pidFile, strconv.Itoa(len(kill))}, kill...)
}

// kill ends the process and what came of it, as far as parents and process
// groups tell. It returns when a look finds none any more. exited is closed when
// the command on the node has ended.
func (e *insideExec) kill(exited <-chan struct{}) error {
	if e == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), insideTimeout)
	defer cancel()
	pid, err := e.await(ctx, exited)
	if err != nil || pid == 0 {
		return err
	}
	family := map[int]bool{pid: true}
	for {
		victims, err := e.find(ctx, family)
		if err != nil || len(victims) == 0 {
			return err
		}
		if err := e.signalAll(ctx, victims); err != nil {
			return err
		}
	}
}

// await waits until the process's PID is known, which is some time after it was
// started; 0 if the command on the node ends without having started one.
func (e *insideExec) await(ctx context.Context, exited <-chan struct{}) (int, error) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for ended := false; ; {
		if pids := readPIDs(e.pidFile); len(pids) == 1 {
			return pids[0], nil
		}
		if ended {
			return 0, nil
		}
		select {
		case <-exited:
			ended = true // it may have written the PID just before
		case <-ctx.Done():
			return 0, errors.New("whether it was started is not known")
		case <-tick.C:
		}
	}
}

// find lists those processes of the container that belong to family, and adds
// them to it.
func (e *insideExec) find(ctx context.Context, family map[int]bool) ([]int, error) {
	out, err := e.runtime.command(ctx, "ps", e.container)
	if isCommandError(err) {
		return nil, nil // the container has ended
	}
	if err != nil {
		return nil, err
	}
	list, err := parsePs(string(out))
	if err != nil {
		return nil, err
	}
	for grown := true; grown; {
		grown = false
		for _, p := range list {
			if !family[p.pid] && (family[p.parent] || family[p.group]) {
				family[p.pid], grown = true, true
			}
		}
	}
	var victims []int
	for _, p := range list {
		if family[p.pid] {
			victims = append(victims, p.pid)
		}
	}
	return victims, nil
}

// insideProcess is a process as the sandbox numbers them.
type insideProcess struct{ pid, parent, group int }

// parsePs reads the table that runsc ps prints, whose first line names the
// columns. Its JSON has only the PIDs.
func parsePs(table string) ([]insideProcess, error) {
	var columns []string
	var list []insideProcess
	for line := range strings.Lines(table) {
		fields := strings.Fields(line)
		if columns == nil {
			columns = fields
			continue
		}
		if len(fields) == 0 {
			continue
		}
		var p insideProcess
		for name, to := range map[string]*int{"PID": &p.pid, "PPID": &p.parent, "PGID": &p.group} {
			var err error
			if i := slices.Index(columns, name); i < 0 || i >= len(fields) {
				return nil, fmt.Errorf("list of processes: no %s in %q", name, line)
			} else if *to, err = strconv.Atoi(fields[i]); err != nil {
				return nil, fmt.Errorf("list of processes: %w", err)
			}
		}
		list = append(list, p)
	}
	return list, nil
}

func (e *insideExec) signalAll(ctx context.Context, victims []int) error {
	var g errgroup.Group
	g.SetLimit(4)
	for _, pid := range victims {
		g.Go(func() error {
			_, err := e.runtime.command(ctx, "kill", "--pid="+strconv.Itoa(pid), e.container, "KILL")
			if isCommandError(err) {
				return nil // it has ended; else the next look finds it
			}
			return err
		})
	}
	return g.Wait()
}
