package main

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"
)

// bursts measures how many pods come up, and go down, in a second, and what
// processor time that takes.
func (b *bench) bursts(ctx context.Context) error {
	for range b.plan.bursts {
		if err := b.bareBurst(ctx); err != nil {
			return err
		}
		for _, s := range b.servers {
			if err := b.burst(ctx, s); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *bench) burst(ctx context.Context, s *server) error {
	pods, err := b.newPods(s, b.plan.burst)
	if err != nil {
		return err
	}
	up := rates{upRate, upCPU, s.name, s.cpu}
	if err := measured(b, up, pods, func(p *pod) error { return p.bringUp(ctx) }); err != nil {
		return err
	}
	down := rates{downRate, downCPU, s.name, s.cpu}
	if err := measured(b, down, pods, func(p *pod) error { return p.bringDown(ctx) }); err != nil {
		return err
	}
	b.forgetAll(ctx, pods)
	return nil
}

func (b *bench) bareBurst(ctx context.Context) error {
	pods := make([]*barePod, b.plan.burst)
	for i := range pods {
		var err error
		if pods[i], err = b.floor.newPod(); err != nil {
			return err
		}
	}
	up := rates{upRate, upCPU, bare, b.floor.cpu}
	err := measured(b, up, pods, func(p *barePod) error {
		_, err := p.up(ctx)
		return err
	})
	if err != nil {
		return err
	}
	down := rates{downRate, downCPU, bare, b.floor.cpu}
	return measured(b, down, pods, func(p *barePod) error {
		_, _, err := p.down(ctx)
		return err
	})
}

func (b *bench) newPods(s *server, n int) ([]*pod, error) {
	pods := make([]*pod, n)
	for i := range pods {
		var err error
		if pods[i], err = s.newPod(b.podName()); err != nil {
			return nil, err
		}
	}
	return pods, nil
}

func (b *bench) forgetAll(ctx context.Context, pods []*pod) {
	for _, p := range pods {
		b.forget(ctx, p)
	}
}

func (p *pod) bringUp(ctx context.Context) error {
	_, err := p.up(ctx)
	return err
}

func (p *pod) bringDown(ctx context.Context) error {
	_, err := p.down(ctx)
	return err
}

// rates says where measured puts its figures, and what reads the processor time.
type rates struct {
	rate, cpuTime string
	of            who
	cpu           func() (time.Duration, error)
}

// measured calls do for each item, a few at a time, and adds how many it did
// in a second and the processor time of each.
func measured[T any](b *bench, r rates, items []T, do func(T) error) error {
	before, err := r.cpu()
	if err != nil {
		return err
	}
	begin := time.Now()
	if err := b.atATime(len(items), func(i int) error { return do(items[i]) }); err != nil {
		return err
	}
	b.results.add(r.rate, r.of, float64(len(items))/time.Since(begin).Seconds())
	after, err := r.cpu()
	b.results.addTime(r.cpuTime, r.of, (after-before)/time.Duration(len(items)))
	return err
}

// atATime calls do with 0 to n-1, a few at a time.
func (b *bench) atATime(n int, do func(i int) error) error {
	var group errgroup.Group
	group.SetLimit(b.plan.workers)
	for i := range n {
		group.Go(func() error { return do(i) })
	}
	return group.Wait()
}
