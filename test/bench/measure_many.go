package main

import (
	"context"
	"fmt"
	"net"
	"syscall"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// populations measures each server with N pods of its own; the pods of one are
// gone before those of the next come.
func (b *bench) populations(ctx context.Context) error {
	for _, s := range b.servers {
		if err := b.population(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) population(ctx context.Context, s *server) error {
	idle, err := b.idle(ctx, s)
	if err != nil {
		return err
	}
	pods, err := b.newPods(s, b.plan.pods)
	if err != nil {
		return err
	}
	if err := b.atATime(len(pods), func(i int) error { return pods[i].bringUp(ctx) }); err != nil {
		return err
	}
	for _, step := range []func(context.Context, *server) error{
		func(ctx context.Context, s *server) error { return b.populated(ctx, s, idle) },
		b.lists,
		b.roundsAmongMany,
		b.killAndStart,
	} {
		if err := step(ctx, s); err != nil {
			return err
		}
	}
	if err := b.atATime(len(pods), func(i int) error { return pods[i].bringDown(ctx) }); err != nil {
		return err
	}
	b.forgetAll(ctx, pods)
	return b.checkEmpty(ctx, s)
}

// idle starts the daemon afresh and returns its memory before it has any pod.
func (b *bench) idle(ctx context.Context, s *server) (memory, error) {
	if err := s.kill(syscall.SIGTERM); err != nil {
		b.note("%v", err)
	}
	if err := s.start(ctx); err != nil {
		return memory{}, err
	}
	if err := pause(ctx, b.plan.idle); err != nil {
		return memory{}, err
	}
	m, err := s.memory()
	b.results.add(idleMemory, s.name, m.daemon)
	if m.processes != 1 {
		b.note("%s has %d processes while it has no pod", s.name, m.processes)
	}
	return m, err
}

// populated measures the memory of N pods.
func (b *bench) populated(ctx context.Context, s *server, idle memory) error {
	if err := pause(ctx, b.plan.settle); err != nil {
		return err
	}
	m, err := s.memory()
	if err != nil {
		return err
	}
	each := func(what string, mib float64) { b.results.add(what, s.name, mib/float64(b.plan.pods)) }
	each(podMemory, m.all()-idle.all())
	each(podOverhead, m.all()-m.containers-idle.all())
	each(podHelpers, m.helpers-idle.helpers)
	each(podDaemon, m.daemon-idle.daemon)
	each(podProcess, m.containers)
	return nil
}

// lists measures the calls that the kubelet makes every second or so.
func (b *bench) lists(ctx context.Context, s *server) error {
	listings := []listing{
		{listCtrs, func(ctx context.Context) (time.Duration, error) {
			return call(ctx, s, s.runtime.ListContainers, &runtimeapi.ListContainersRequest{})
		}},
		{listPods, func(ctx context.Context) (time.Duration, error) {
			return call(ctx, s, s.runtime.ListPodSandbox, &runtimeapi.ListPodSandboxRequest{})
		}},
		{listStats, func(ctx context.Context) (time.Duration, error) {
			return call(ctx, s, s.runtime.ListContainerStats, &runtimeapi.ListContainerStatsRequest{})
		}},
		{podStats, func(ctx context.Context) (time.Duration, error) {
			return call(ctx, s, s.runtime.ListPodSandboxStats, &runtimeapi.ListPodSandboxStatsRequest{})
		}},
		{podMetrics, func(ctx context.Context) (time.Duration, error) {
			return call(ctx, s, s.runtime.ListPodSandboxMetrics, &runtimeapi.ListPodSandboxMetricsRequest{})
		}},
		{rawMetrics, func(ctx context.Context) (time.Duration, error) {
			return call(ctx, s, s.runtime.ListPodSandboxMetrics, &runtimeapi.ListPodSandboxMetricsRequest{}, undecoded())
		}},
	}
	lacking := map[string]bool{}
	for range b.plan.lists {
		for _, l := range listings {
			if lacking[l.what] {
				continue
			}
			took, err := l.call(ctx)
			switch {
			case status.Code(err) == codes.Unimplemented:
				b.note("%s does not implement %s", s.name, l.what)
				lacking[l.what] = true
			case err != nil:
				return err
			default:
				b.results.addTime(l.what, s.name, took)
			}
		}
	}
	return nil
}

// listing is one call of lists.
type listing struct {
	what string
	call func(context.Context) (time.Duration, error)
}

// roundsAmongMany measures one pod more, again and again, and the floor beside it.
func (b *bench) roundsAmongMany(ctx context.Context, s *server) error {
	one := results{}
	for range b.plan.extra {
		if err := b.bareRound(ctx, one); err != nil {
			return err
		}
		if err := b.round(ctx, s, one); err != nil {
			return err
		}
	}
	names := map[string]string{podUp: manyUp, createOne: manyCreate, startOne: manyStart, podDown: manyDown}
	for what, many := range names {
		for _, value := range one[what][s.name] {
			b.results.add(many, s.name, value)
		}
		for _, value := range one[what][bare] {
			b.results.add(many, besides(s), value)
		}
	}
	return nil
}

// besides names the floor as it is beside N pods of the server. The table shows
// the one beside Gantry's.
func besides(s *server) who {
	if s.name == gantry {
		return bare
	}
	return bare + " beside " + s.name
}

// killAndStart kills the daemon without warning and takes the time from its
// start until it lists all pods and containers as running.
func (b *bench) killAndStart(ctx context.Context, s *server) error {
	if err := s.kill(syscall.SIGKILL); err != nil {
		return err
	}
	if err := s.conn.Close(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, b.plan.call)
	defer cancel()
	begin := time.Now()
	if err := s.launch(); err != nil {
		return err
	}
	if err := s.listening(ctx); err != nil {
		return err
	}
	if err := s.connect(); err != nil {
		return err
	}
	for {
		pods, containers, err := s.alive(ctx)
		if err == nil && pods == b.plan.pods && containers == b.plan.pods {
			break
		}
		if late := pause(ctx, 2*time.Millisecond); late != nil {
			return fmt.Errorf("%s lists %d pods and %d containers as running of %d (%v): %w", s.name, pods, containers, b.plan.pods, err, late)
		}
	}
	b.results.add(restart, s.name, time.Since(begin).Seconds())
	return nil
}

// listening waits until the daemon accepts connections.
func (s *server) listening(ctx context.Context) error {
	for {
		conn, err := net.Dial("unix", s.socket)
		if err == nil {
			return conn.Close()
		}
		if s.hasEnded() {
			return fmt.Errorf("%s ended at once", s.name)
		}
		if late := pause(ctx, time.Millisecond); late != nil {
			return fmt.Errorf("%s does not listen: %w: %w", s.name, err, late)
		}
	}
}

// alive counts the pods that are ready and the containers that run.
func (s *server) alive(ctx context.Context) (pods, containers int, err error) {
	list, err := s.runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		return 0, 0, err
	}
	for _, p := range list.Items {
		if p.State == runtimeapi.PodSandboxState_SANDBOX_READY {
			pods++
		}
	}
	ctrs, err := s.runtime.ListContainers(ctx, &runtimeapi.ListContainersRequest{})
	if err != nil {
		return pods, 0, err
	}
	for _, c := range ctrs.Containers {
		if c.State == runtimeapi.ContainerState_CONTAINER_RUNNING {
			containers++
		}
	}
	return pods, containers, nil
}

// checkEmpty notes what the server has left when all pods are removed.
func (b *bench) checkEmpty(ctx context.Context, s *server) error {
	list, err := s.runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		return err
	}
	if n := len(list.Items); n > 0 {
		b.note("%s still lists %d pods when all are removed", s.name, n)
	}
	m, err := s.memory()
	if m.processes != 1 {
		b.note("%s has %d processes when all pods are removed", s.name, m.processes)
	}
	return err
}
