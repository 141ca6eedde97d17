package main

import (
	"context"
	"runtime/debug"
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
)

// trimmer gives memory back once calls that changed something have ended.
type trimmer struct {
	timer *time.Timer
}

func newTrimmer() *trimmer {
	debug.SetGCPercent(gcPercent)
	return &trimmer{timer: time.AfterFunc(idleAfter, debug.FreeOSMemory)}
}

// unary puts off the trimming by every call but the kubelet's constant looking.
func (t *trimmer) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	resp, err := handle(ctx, req)
	if server.Mutates(info.FullMethod) {
		t.timer.Reset(idleAfter)
	}
	return resp, err
}
