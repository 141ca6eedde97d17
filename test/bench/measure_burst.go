package main

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"
)

// bursts measures how many pods come up, and go down, in a second.
func (b *bench) bursts(ctx context.Context) error {
	for range b.plan.bursts {
		if err := b.bareBurst(ctx); err != nil {
			return err
		}
		for _, s := range b.servers {
			pods, rate, err := b.bringUp(ctx, s, b.plan.burst)
			if err != nil {
				return err
			}
			b.results.add(upRate, s.name, rate)
			if rate, err = b.bringDown(ctx, pods); err != nil {
				return err
			}
			b.results.add(downRate, s.name, rate)
		}
	}
	return nil
}

// bringUp brings n pods up, a few at a time, and returns how many in a second.
func (b *bench) bringUp(ctx context.Context, s *server, n int) ([]*pod, float64, error) {
	pods := make([]*pod, n)
	for i := range pods {
		var err error
		if pods[i], err = s.newPod(b.podName()); err != nil {
			return nil, 0, err
		}
	}
	rate, err := rateOf(ctx, b.plan.workers, pods, func(ctx context.Context, p *pod) error {
		_, err := p.up(ctx)
		return err
	})
	return pods, rate, err
}

func (b *bench) bringDown(ctx context.Context, pods []*pod) (float64, error) {
	rate, err := rateOf(ctx, b.plan.workers, pods, func(ctx context.Context, p *pod) error {
		_, err := p.down(ctx)
		return err
	})
	if err != nil {
		return 0, err
	}
	for _, p := range pods {
		b.forget(ctx, p)
	}
	return rate, nil
}

func (b *bench) bareBurst(ctx context.Context) error {
	pods := make([]*barePod, b.plan.burst)
	for i := range pods {
		var err error
		if pods[i], err = b.floor.newPod(); err != nil {
			return err
		}
	}
	rate, err := rateOf(ctx, b.plan.workers, pods, func(ctx context.Context, p *barePod) error {
		_, err := p.up(ctx)
		return err
	})
	if err != nil {
		return err
	}
	b.results.add(upRate, bare, rate)
	rate, err = rateOf(ctx, b.plan.workers, pods, func(ctx context.Context, p *barePod) error {
		_, _, err := p.down(ctx)
		return err
	})
	b.results.add(downRate, bare, rate)
	return err
}

// rateOf calls do for each item, a few at a time, and returns how many it did
// in a second.
func rateOf[T any](ctx context.Context, workers int, items []T, do func(context.Context, T) error) (float64, error) {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(workers)
	begin := time.Now()
	for _, item := range items {
		group.Go(func() error { return do(ctx, item) })
	}
	err := group.Wait()
	return float64(len(items)) / time.Since(begin).Seconds(), err
}
