package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	p, err := parsePlan(os.Args[1:])
	if err == nil {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
		err = stages(ctx, p)
		stop()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// stages runs the part of the program that this process is for.
func stages(ctx context.Context, p plan) error {
	switch os.Getenv(stageVariable) {
	case stageInit:
		return reap()
	case stageRun:
		ctx, cancel := context.WithTimeout(ctx, p.limit)
		defer cancel()
		return run(ctx, p, os.Getenv(dirVariable))
	default:
		return outside(ctx, p)
	}
}
