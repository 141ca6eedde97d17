package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containernetworking/cni/libcni"
	"golang.org/x/sync/errgroup"

	"github.com/gantry-cri/gantry/internal/network"
)

// A barePod is what a pod needs at least: a network namespace that CNI attached,
// a container that stands for pause, and a container. The bundles are written
// beforehand, and no time is taken for them.
type barePod struct {
	floor   *floor
	network *libcni.RuntimeConf
	pause   *bareContainer
	main    *bareContainer
}

func (f *floor) newPod() (*barePod, error) {
	p := &barePod{floor: f, network: f.cni.attachment(fmt.Sprintf("netns%d", f.count.Add(1)))}
	var err1, err2 error
	p.pause, err1 = f.bundle(p.network.NetNS)
	p.main, err2 = f.bundle(p.network.NetNS)
	return p, errors.Join(err1, err2)
}

// bareTimes are the durations of a bare pod's start and of parts of it.
type bareTimes struct{ total, add, create, start time.Duration }

// up does what has to be done, in parallel where it can be.
func (p *barePod) up(ctx context.Context) (bareTimes, error) {
	ctx, cancel := context.WithTimeout(ctx, p.floor.bench.plan.call)
	defer cancel()
	var t bareTimes
	begin := time.Now()
	if err := network.CreateNetNS(p.network.NetNS); err != nil {
		return t, err
	}
	group, inner := errgroup.WithContext(ctx)
	group.Go(func() error {
		begin := time.Now()
		err := p.floor.cni.add(inner, p.network)
		t.add = time.Since(begin)
		return err
	})
	group.Go(func() error {
		_, _, err := p.pause.up(inner)
		return err
	})
	err := group.Wait()
	if err == nil {
		t.create, t.start, err = p.main.up(ctx)
	}
	t.total = time.Since(begin)
	return t, err
}

// down ends everything at the same time.
func (p *barePod) down(ctx context.Context) (total, del time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, p.floor.bench.plan.call)
	defer cancel()
	begin := time.Now()
	group, inner := errgroup.WithContext(ctx)
	group.Go(func() error {
		err := p.floor.cni.del(inner, p.network)
		del = time.Since(begin)
		return err
	})
	group.Go(func() error { return p.main.delete(inner) })
	group.Go(func() error { return p.pause.delete(inner) })
	err = group.Wait()
	err = errors.Join(err, network.RemoveNetNS(p.network.NetNS))
	return time.Since(begin), del, err
}
