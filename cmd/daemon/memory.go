package main

import (
	"context"
	"runtime/debug"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/gantry-cri/gantry/internal/server"
)

// The daemon's memory: a node runs hundreds of pods beside it, and most of the
// time it does nothing.
const (
	// gcPercent trades a little processor time for a smaller heap.
	gcPercent = 50
	// idleAfter is how long nothing may have been asked for before what the
	// heap does not need is given back to the node.
	idleAfter = 2 * time.Second
	// manyLooks is how many calls that change nothing count as one that does.
	// The kubelet's constant looking, with a probe now and then, must not put
	// the trimming off for ever, nor cause it all the time.
	manyLooks = 100
)

// trimmer gives memory back once calls that changed something have ended, or
// many others: hundreds of probes at once leave as much behind as a pod does.
type trimmer struct {
	timer *time.Timer
	looks atomic.Uint64
}

func newTrimmer() *trimmer {
	debug.SetGCPercent(gcPercent)
	return &trimmer{timer: time.AfterFunc(idleAfter, debug.FreeOSMemory)}
}

// unary puts off the trimming by every call but the kubelet's constant looking,
// of which only every hundredth counts.
func (t *trimmer) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	resp, err := handle(ctx, req)
	if server.Mutates(info.FullMethod) || t.looks.Add(1)%manyLooks == 0 {
		t.timer.Reset(idleAfter)
	}
	return resp, err
}
