package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	rspec "github.com/opencontainers/runtime-spec/specs-go"
)

// firstSizeWait is how long the start of a process with a terminal waits for
// the client to tell its size, which clients that know theirs do at once.
const firstSizeWait = 50 * time.Millisecond

// Size is a terminal's size in characters.
type Size = struct{ Columns, Rows uint16 }

// Streams are a client's ends of a process's streams. What the client does not
// want is nil. With a TTY there is no Err.
type Streams struct {
	In     io.Reader
	Out    io.Writer
	Err    io.Writer
	TTY    bool
	Resize <-chan Size // nil where the size never changes
}

// StreamOptions say what Exec is to run.
type StreamOptions struct {
	Args []string
	// Config, Dir, CgroupProcs, UserNS and Helper are as in ExecSyncOptions; Helper is needed.
	Config, Dir string
	CgroupProcs []string
	UserNS      *UserNamespace
	Helper      string
	OOMScoreAdj *int // as in ExecOptions
}

// Exec runs a process in the container id, connected to s, and returns its exit
// code, 128 + the signal if one ended it. All that it has written by its end is
// written to s before, however slowly s takes it. When ctx ends, the process
// and all that it started are killed.
//
// What reads from s.In may go on until that returns.
func (r *Runtime) Exec(ctx context.Context, id string, o StreamOptions, s Streams) (code int, err error) {
	e := &session{
		execution: &execution{cgroupProcs: o.CgroupProcs, owner: o.UserNS, mark: r.newMark(), exited: make(chan struct{})},
		streams:   s,
	}
	command := ExecOptions{Args: o.Args, Config: o.Config, Dir: o.Dir, TTY: s.TTY, OOMScoreAdj: o.OOMScoreAdj}
	run := e.runPipes
	if s.TTY {
		if e.console, err = listenConsole(o.Dir); err != nil {
			return 0, fmt.Errorf("exec in container %s: %w", id, err)
		}
		defer func() { err = errors.Join(err, e.console.Close()) }()
		e.size = e.firstSize(ctx)
		command.ConsoleSocket, command.ConsoleSize = e.console.path, e.size
		run = e.runTerminal
	}
	if e.Exec, err = r.ExecCommand(context.Background(), id, command); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	e.waitThrough(o.Helper)
	e.words = &runtimeWords{session: e, kept: tail{max: maxStderr}}
	if err := run(ctx); err != nil {
		return 0, fmt.Errorf("exec in container %s: %w", id, err)
	}
	return e.outcome(r, id, &e.words.kept)
}

// session is one Exec under way.
type session struct {
	*execution
	streams Streams
	words   *runtimeWords
	console *consoleSocket // with a TTY
	size    *rspec.Box     // of the terminal from the start, where it is known
}

// firstSize is the client's first word on the size of its terminal; nil if it
// says none soon.
func (e *session) firstSize(ctx context.Context) *rspec.Box {
	if e.streams.Resize == nil {
		return nil
	}
	select {
	case s, ok := <-e.streams.Resize:
		if ok {
			return &rspec.Box{Width: uint(s.Columns), Height: uint(s.Rows)}
		}
	case <-time.After(firstSizeWait):
	case <-ctx.Done():
	}
	return nil
}

// runPipes runs the process with pipes for its streams.
func (e *session) runPipes(ctx context.Context) error {
	out, err := e.pipeOut(&e.Cmd.Stdout, e.streams.Out)
	if err != nil {
		return err
	}
	defer out.r.Close() //nolint:errcheck // only read from
	words, err := e.pipeOut(&e.Cmd.Stderr, e.words)
	if err != nil {
		return err
	}
	defer words.r.Close() //nolint:errcheck // only read from
	var in *os.File
	if e.streams.In != nil {
		if in, err = e.pipeIn(); err != nil {
			return err
		}
		defer in.Close() //nolint:errcheck // what was not read by now never is
	}
	if err := e.launch(); err != nil {
		return err
	}
	if in != nil {
		go func() {
			io.Copy(in, e.streams.In) //nolint:errcheck // either side may have no more to say
			in.Close()                //nolint:errcheck // the process sees the end of its input
		}()
	}
	return e.wait(ctx, out, words)
}

// runTerminal runs the process in a terminal that the runtime makes. Only what
// the runtime itself has to say comes by the pipe.
func (e *session) runTerminal(ctx context.Context) error {
	words, err := e.pipeOut(&e.Cmd.Stderr, e.words)
	if err != nil {
		return err
	}
	defer words.r.Close() //nolint:errcheck // only read from
	if err := e.launch(); err != nil {
		return err
	}
	master, err := e.receiveTerminal(ctx)
	if err != nil {
		return errors.Join(err, e.kill())
	}
	if master == nil { // the runtime failed: its words tell why
		return e.wait(ctx, words)
	}
	defer master.Close() //nolint:errcheck // nothing is buffered
	if e.size != nil {   // runsc leaves that to its caller
		resize(master, Size{Columns: uint16(e.size.Width), Rows: uint16(e.size.Height)})
	}
	if e.streams.In != nil {
		go io.Copy(master, e.streams.In) //nolint:errcheck // a terminal's input has no end
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go e.followSize(ctx, master)
	return e.wait(ctx, newPump(master, e.streams.Out), words)
}

// receiveTerminal waits for the terminal; nil if the runtime ended without
// having made one.
func (e *session) receiveTerminal(ctx context.Context) (*os.File, error) {
	type result struct {
		master *os.File
		err    error
	}
	received := make(chan result, 1)
	go func() {
		master, err := e.console.receive(ctx)
		received <- result{master, err}
	}()
	select {
	case r := <-received:
		return r.master, r.err
	case <-e.exited:
	}
	select {
	case r := <-received: // it came at the same time
		return r.master, r.err
	case <-time.After(leaveGrace):
	}
	if e.processID() != 0 {
		return nil, errors.New("the runtime sent no terminal")
	}
	return nil, nil
}

// followSize keeps a terminal's size as the client says, until ctx ends.
func (e *session) followSize(ctx context.Context, master *os.File) {
	for {
		select {
		case s, ok := <-e.streams.Resize: // never, if it is nil
			if !ok {
				return
			}
			resize(master, s)
		case <-ctx.Done():
			return
		}
	}
}

// wait waits for the end of the process and of its output, and kills it if ctx
// ends before. It begins with starting the pumps.
func (e *session) wait(ctx context.Context, pumps ...*pump) error {
	for _, p := range pumps {
		go p.run()
	}
	select {
	case <-e.exited:
	case <-ctx.Done():
		return errors.Join(context.Cause(ctx), e.kill())
	}
	for _, p := range pumps {
		p.processEnded()
	}
	for _, p := range pumps {
		select {
		case <-p.done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// pipeOut makes a pipe whose writing end becomes the command's *to, and a pump
// from it to w. launch closes the writing end.
func (e *session) pipeOut(to *io.Writer, w io.Writer) (*pump, error) {
	r, theirs, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	name, err := pipeName(r)
	if err != nil {
		return nil, errors.Join(err, r.Close(), theirs.Close())
	}
	e.outputs = append(e.outputs, name)
	e.theirs = append(e.theirs, theirs)
	*to = theirs
	return newPump(r, w), nil
}

// pipeIn makes the pipe of the command's input and returns its writing end.
// launch closes the other one.
func (e *session) pipeIn() (*os.File, error) {
	theirs, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	e.theirs = append(e.theirs, theirs)
	e.Cmd.Stdin = theirs
	return w, nil
}

// runtimeWords is where standard error goes: to the client once the process
// runs. What comes before is the runtime's and is kept, for the error that
// tells why the process does not run.
type runtimeWords struct {
	session *session
	started bool
	kept    tail // to be read once nothing is written any more
}

func (w *runtimeWords) Write(p []byte) (int, error) {
	if !w.started {
		w.started = w.session.awaitProcess()
	}
	switch {
	case !w.started:
		return w.kept.Write(p)
	case w.session.streams.Err == nil:
		return len(p), nil
	}
	return w.session.streams.Err.Write(p)
}

// awaitProcess waits until the process runs, or is known not to.
func (e *session) awaitProcess() bool {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		if e.processID() != 0 {
			return true
		}
		select {
		case <-e.exited:
			return e.processID() != 0
		case <-tick.C:
		}
	}
}
