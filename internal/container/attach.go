package container

import (
	"context"
	"errors"
	"fmt"

	"github.com/gantry-cri/gantry/internal/errkind"
	"github.com/gantry-cri/gantry/internal/monitor"
	"github.com/gantry-cri/gantry/internal/oci"
)

// CanAttach returns why a client can't be attached now, or nil: of kind Invalid
// if it asks for what the container was not created with, Precondition if the
// container has ended. A container that is not started yet is fine.
func (c *Container) CanAttach(stdin, tty bool) error {
	cfg := c.Config()
	switch {
	case c.Status().State == Exited:
		return errkind.Errorf(errkind.Precondition, "attach to container %s: it has exited", c.Record.ID)
	case tty && !cfg.GetTty():
		return errkind.Errorf(errkind.Invalid, "attach to container %s: it was created without a terminal", c.Record.ID)
	case !tty && cfg.GetTty():
		return errkind.Errorf(errkind.Invalid, "attach to container %s: it was created with a terminal, ask for one", c.Record.ID)
	case stdin && !cfg.GetStdin():
		return errkind.Errorf(errkind.Invalid, "attach to container %s: it was created without standard input", c.Record.ID)
	}
	return nil
}

// Attach connects s to the container's own streams until the container has
// exited, s takes no more, or ctx ends. It shows what comes from now on. The
// container goes on as if nobody had been attached, but for one that was
// created with StdinOnce: its input ends with the client's.
func (c *Container) Attach(ctx context.Context, s oci.Streams) error {
	if err := c.CanAttach(s.In != nil, s.TTY); err != nil {
		return err
	}
	mon, err := c.pod.Monitor()
	if err != nil {
		return err
	}
	stream, err := mon.Attach(ctx, c.Record.ID, monitor.AttachOptions{
		Stdin: s.In != nil, Stdout: s.Out != nil, Stderr: s.Err != nil,
	})
	if err != nil {
		if errors.Is(err, monitor.ErrExited) {
			return errkind.Wrap(errkind.Precondition, err)
		}
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { stream.Close() }) //nolint:errcheck // it ends what is under way
	defer stop()
	go c.followSize(ctx, stream, s.Resize)
	copied, err := stream.Copy(s.In, s.Out, s.Err)
	if copied.Lost > 0 {
		c.log.Warn("an attached client was too slow: output was left out for it alone", "bytes", copied.Lost)
	}
	if cause := context.Cause(ctx); err == nil && !errors.Is(cause, context.Canceled) {
		err = cause // it was not the client who ended the session
	}
	if err = errors.Join(err, stream.Close()); err != nil {
		return fmt.Errorf("attach to container %s: %w", c.Record.ID, err)
	}
	return nil
}

// followSize keeps the terminal's size as a client says, until ctx ends.
func (c *Container) followSize(ctx context.Context, stream *monitor.Stream, sizes <-chan oci.Size) {
	for {
		select {
		case size, ok := <-sizes: // never, if it is nil
			if !ok {
				return
			}
			if err := stream.Resize(ctx, size.Columns, size.Rows); err != nil {
				c.log.Debug("resize", "err", err)
			}
		case <-ctx.Done():
			return
		}
	}
}
