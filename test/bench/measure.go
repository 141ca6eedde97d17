package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"
)

// What is measured. "N pods" is said in the table with the number.
const (
	podUp       = "pod up: run + create + start"
	runPod      = "RunPodSandbox"
	createOne   = "CreateContainer"
	startOne    = "StartContainer"
	execTrue    = "ExecSync true"
	podDown     = "pod down: stop + remove"
	upCPU       = "CPU time of a pod up, 8 at a time"
	downCPU     = "CPU time of a pod down"
	cniAdd      = "CNI ADD"
	cniDel      = "CNI DEL"
	upRate      = "pods up/s"
	downRate    = "pods down/s"
	manyUp      = "pod up, N pods"
	manyCreate  = "CreateContainer, N pods"
	manyStart   = "StartContainer, N pods"
	manyDown    = "pod down, N pods"
	growth      = "CreateContainer, N pods ÷ no pods"
	idleMemory  = "memory, no pod, PSS"
	podMemory   = "memory per pod"
	podHelpers  = "- shim or monitor, and pause"
	podDaemon   = "- growth of the daemon"
	podProcess  = "- the container's own process"
	podOverhead = "memory per pod without the container's process"
	listCtrs    = "ListContainers, N pods"
	listPods    = "ListPodSandbox, N pods"
	listStats   = "ListContainerStats, N pods"
	podStats    = "ListPodSandboxStats, N pods"
	podMetrics  = "ListPodSandboxMetrics, N pods"
	rawMetrics  = "- until all has come, not decoded"
	restart     = "SIGKILL with N pods, start: all listed"
	pullNginx   = "pull nginx, 7 MB"
	pullGzip    = "pull 97 MB, gzip, 2 layers"
	pullZstd    = "pull the same as zstd"
	pullLayers  = "pull 40 small layers"
	pullAgain   = "pull a second tag"
	pullSame    = "pull the same tag again"
	pullUpdate  = "pull an update of 107 MB of zstd:chunked, 3 % new"
	updateBytes = "what that transfers"
	pullMemory  = "growth of the daemon's RSS while it pulls 97 MB"
	logRate     = "log, 100-byte lines, none lost"
	attachRate  = "output to an attached client"
	soakMemory  = "growth of the daemon by N execs"
)

// measure fills the results. Where it is cheap, the servers and the floor take
// turns, so that noise hits all of them.
func (b *bench) measure(ctx context.Context) error {
	steps := []struct {
		name string
		do   func(context.Context) error
	}{
		{"start the servers and pull the images", b.startServers},
		{"warm up", b.warmUp},
		{fmt.Sprintf("%d pods up and down, one at a time", b.plan.rounds), b.rounds},
		{fmt.Sprintf("%d commands in a container", b.plan.execs), b.execs},
		{fmt.Sprintf("%d times %d pods, %d at a time", b.plan.bursts, b.plan.burst, b.plan.workers), b.bursts},
		{fmt.Sprintf("%d pulls of large images", pullRepeats), b.pulls},
		{fmt.Sprintf("%d times 512 MB of log", b.plan.bursts), b.logs},
		{"an attached client", b.attached},
		{fmt.Sprintf("%d commands, 8 at a time", b.plan.soak), b.soak},
		{fmt.Sprintf("%d pods", b.plan.pods), b.populations},
	}
	begin := time.Now()
	for i, step := range steps {
		if i > 1 && !b.plan.only.MatchString(step.name) {
			continue
		}
		fmt.Fprintf(os.Stderr, "bench: %4.0f s: %s\n", time.Since(begin).Seconds(), step.name)
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	fmt.Fprintf(os.Stderr, "bench: %4.0f s: done\n", time.Since(begin).Seconds())
	return nil
}

func (b *bench) startServers(ctx context.Context) error {
	for _, s := range b.servers {
		if err := s.start(ctx); err != nil {
			return err
		}
		if _, err := s.pull(ctx, busyboxImage); err != nil {
			return err
		}
		took, err := s.pull(ctx, nginxImage)
		if err != nil {
			return err
		}
		b.results.addTime(pullNginx, s.name, took)
	}
	return nil
}

// warmUp runs two pods that are not counted, of each server and of the floor.
func (b *bench) warmUp(ctx context.Context) error {
	discarded := results{}
	for range 2 {
		if err := b.bareRound(ctx, discarded); err != nil {
			return err
		}
		for _, s := range b.servers {
			if err := b.round(ctx, s, discarded); err != nil {
				return err
			}
		}
	}
	return nil
}

// rounds measures one pod at a time; who comes first changes.
func (b *bench) rounds(ctx context.Context) error {
	order := slices.Clone(b.servers)
	for range b.plan.rounds {
		if err := b.bareRound(ctx, b.results); err != nil {
			return err
		}
		for _, s := range order {
			if err := b.round(ctx, s, b.results); err != nil {
				return err
			}
		}
		slices.Reverse(order)
	}
	return nil
}

// round brings one pod of the server up and down.
func (b *bench) round(ctx context.Context, s *server, into results) error {
	p, err := s.newPod(b.podName())
	if err != nil {
		return err
	}
	t, err := p.up(ctx)
	if err != nil {
		return err
	}
	into.addTime(podUp, s.name, t.total())
	into.addTime(runPod, s.name, t.run)
	into.addTime(createOne, s.name, t.create)
	into.addTime(startOne, s.name, t.start)
	down, err := p.down(ctx)
	if err != nil {
		return err
	}
	into.addTime(podDown, s.name, down)
	b.forget(ctx, p)
	return nil
}

func (b *bench) bareRound(ctx context.Context, into results) error {
	p, err := b.floor.newPod()
	if err != nil {
		return err
	}
	t, err := p.up(ctx)
	if err != nil {
		return err
	}
	into.addTime(podUp, bare, t.total)
	into.addTime(cniAdd, bare, t.add)
	into.addTime(createOne, bare, t.create)
	into.addTime(startOne, bare, t.start)
	down, del, err := p.down(ctx)
	if err != nil {
		return err
	}
	into.addTime(podDown, bare, down)
	into.addTime(cniDel, bare, del)
	return nil
}

// execs runs a command in one container of each again and again, in turn.
func (b *bench) execs(ctx context.Context) error {
	lone, err := b.floor.newPod()
	if err != nil {
		return err
	}
	if _, err := lone.up(ctx); err != nil {
		return err
	}
	var pods []*pod
	for _, s := range b.servers {
		p, err := s.newPod(b.podName())
		if err != nil {
			return err
		}
		if _, err := p.up(ctx); err != nil {
			return err
		}
		pods = append(pods, p)
	}
	for i := range b.plan.execs + 1 { // the first is a warm-up
		into := b.results
		if i == 0 {
			into = results{}
		}
		if err := execOnce(ctx, lone, pods, into); err != nil {
			return err
		}
	}
	for _, p := range pods {
		if _, err := p.down(ctx); err != nil {
			return err
		}
		b.forget(ctx, p)
	}
	_, _, err = lone.down(ctx)
	return err
}

func execOnce(ctx context.Context, lone *barePod, pods []*pod, into results) error {
	took, err := lone.main.exec(ctx)
	if err != nil {
		return err
	}
	into.addTime(execTrue, bare, took)
	for _, p := range pods {
		took, err := p.exec(ctx)
		if err != nil {
			return err
		}
		into.addTime(execTrue, p.server.name, took)
	}
	return nil
}

// podName names a new pod.
func (b *bench) podName() string {
	b.names++
	return fmt.Sprintf("pod%d", b.names)
}

// forget removes what the kubelet would after a pod; what can't be removed was
// left by the server, which is worth a note.
func (b *bench) forget(ctx context.Context, p *pod) {
	if err := p.forget(ctx); err != nil {
		b.note("%s: after pod %s was removed: %v", p.server.name, p.sandbox.Metadata.Name, err)
	}
}

func (b *bench) note(format string, args ...any) {
	b.notes = append(b.notes, fmt.Sprintf(format, args...))
}
