package oci

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-cri/gantry/internal/errkind"
)

// probeAgainAfter is how often a binary that did not work is tried again for
// somebody who only asks how it is.
const probeAgainAfter = 10 * time.Second

// known is what is known of a runtime's binary. A value is never changed.
type known struct {
	probed       // of the last probe that succeeded
	err    error // of the last probe; nil if it succeeded
	at     time.Time
	stat   fileIdentity // of the binary at the last probe
}

// probing is a probe under way.
type probing struct {
	done chan struct{} // closed at the end
	err  error         // set before
}

// Ready returns nil if the binary works: it was probed, and is still the one
// that was. Otherwise it is probed now. The error, of kind Precondition, says
// why the runtime can't be used.
func (r *Runtime) Ready(ctx context.Context) error {
	k := r.known.Load()
	if !k.at.IsZero() && k.err == nil && !r.replaced(k) {
		return nil
	}
	p := r.probeInBackground()
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		return errkind.Errorf(errkind.Precondition, "runtime %s can't be used: probing it: %w", r.handler, ctx.Err())
	}
}

// Problem is why the binary can't be used, as far as that is known; nil if it
// can. It does not wait: what is out of date is looked at in the background.
func (r *Runtime) Problem() error {
	k := r.known.Load()
	if r.replaced(k) || k.err != nil && time.Since(k.at) > probeAgainAfter {
		r.probeInBackground()
	}
	return k.err
}

// current is what is known of the binary. If it was replaced, the old answer
// stands until the new one was probed, in the background.
func (r *Runtime) current() probed {
	k := r.known.Load()
	if r.replaced(k) {
		r.probeInBackground()
	}
	return k.probed
}

// Presume says what the binary called itself when it last worked, for one that
// can't be asked now.
func (r *Runtime) Presume(name string) {
	for {
		k := r.known.Load()
		if k.name != "" {
			return
		}
		next := *k
		next.name = name
		if r.known.CompareAndSwap(k, &next) {
			return
		}
	}
}

// replaced reports whether the binary is not the one of the last probe.
func (r *Runtime) replaced(k *known) bool {
	stat, _ := r.find()
	return stat != k.stat
}

// find looks for the binary; one that is not there has no identity.
func (r *Runtime) find() (fileIdentity, error) {
	if r.Path() == "" {
		path, err := exec.LookPath(r.handler)
		if err != nil {
			return fileIdentity{}, err
		}
		r.path.Store(&path)
	}
	return identify(r.Path())
}

// probeInBackground begins a probe, or joins the one under way.
func (r *Runtime) probeInBackground() *probing {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.probing != nil {
		return r.probing
	}
	p := &probing{done: make(chan struct{})}
	r.probing = p
	go func() {
		p.err = r.probeNow()
		r.mu.Lock()
		r.probing = nil
		r.mu.Unlock()
		close(p.done)
	}()
	return p
}

func (r *Runtime) probeNow() error {
	stat, err := r.find()
	var p probed
	if err == nil {
		p, err = r.probe(context.Background())
	}
	if err != nil {
		err = errkind.Wrap(errkind.Precondition, fmt.Errorf("runtime %s can't be used: %w", r.handler, err))
	}
	for {
		k := r.known.Load()
		next := known{probed: p, err: err, at: time.Now(), stat: stat}
		if err != nil {
			next.probed = k.probed
		}
		if r.known.CompareAndSwap(k, &next) {
			return err
		}
	}
}

// fileIdentity changes when a file is replaced or written to.
type fileIdentity struct {
	dev, ino    uint64
	size, mtime int64
}

func identify(path string) (fileIdentity, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return fileIdentity{}, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return fileIdentity{dev: st.Dev, ino: st.Ino, size: st.Size, mtime: st.Mtim.Nano()}, nil
}
