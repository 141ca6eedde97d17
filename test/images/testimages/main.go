// Command testimages builds a set of the tests' images and pushes it to a
// registry on this machine:
//
//	testimages CACHE-DIR demo|critest [HOST:PORT]
//
// It prints the directory of the OCI image layout it built.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/gantry-cri/gantry/test/images"
)

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "testimages:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) != 2 && len(args) != 3 {
		return fmt.Errorf("usage: testimages CACHE-DIR demo|critest [HOST:PORT]")
	}
	dir, err := images.Build(ctx, args[0], images.Set(args[1]))
	if err != nil {
		return err
	}
	fmt.Println(dir)
	if len(args) == 2 {
		return nil
	}
	return images.Push(ctx, dir, args[2])
}
