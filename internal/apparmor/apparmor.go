// Package apparmor knows which AppArmor profiles the kernel has, and loads the
// default one of containers.
package apparmor

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	profiles "github.com/moby/profiles/apparmor"

	"github.com/gantry-cri/gantry/internal/errkind"
)

// Builtin is the name of the profile that Gantry loads itself. Any other has to
// be loaded by the node's administrator.
const Builtin = "gantry-default"

// Parser is the program that loads a profile.
const Parser = "apparmor_parser"

// loadTimeout is how long a container waits for the profile to be loaded.
const loadTimeout = 20 * time.Second

// Profiles are those of a node. It is safe for concurrent use.
type Profiles struct {
	o       Options
	problem atomic.Pointer[error] // why the default profile can't be loaded; never nil

	mu      sync.Mutex
	loading *loading // guarded by mu; nil while none is under way
}

// Options are what Profiles work with.
type Options struct {
	Enabled bool   // whether the kernel has AppArmor, and uses it
	Default string // name of the profile of containers that ask for the runtime's default
	Log     *slog.Logger
	// Root is the directory that stands for /, in tests.
	Root string
	// Load loads the built-in profile under a name; nil is the real thing.
	Load func(name string) error
}

type loading struct {
	done chan struct{} // closed at the end
	err  error         // set before
}

// New returns the node's profiles, and begins to load the default one if it is
// the built-in one and not there.
func New(o Options) *Profiles {
	if o.Load == nil {
		o.Load = load
	}
	p := &Profiles{o: o}
	p.problem.Store(new(error))
	if o.Enabled {
		go func() {
			if err := p.Require(o.Default); err != nil {
				o.Log.Error("containers can't have the default AppArmor profile", "profile", o.Default, "err", err)
			}
		}()
	}
	return p
}

// load has the parser load the profile into the kernel.
func load(name string) error {
	if _, err := exec.LookPath(Parser); err != nil {
		return fmt.Errorf("%s, which loads it, is missing: install AppArmor's user-space tools (package apparmor)", Parser)
	}
	return profiles.InstallDefault(name)
}

// Require returns nil if the kernel has the profile of a container that is
// about to be made. The built-in profile is loaded if it is missing, be it for
// the first time or because somebody removed it. The error is of kind
// Precondition. "" and "unconfined" are no profiles and need nothing.
func (p *Profiles) Require(name string) error {
	if name == "" || name == "unconfined" {
		return nil
	}
	loaded, err := p.loaded(name)
	if err == nil && !loaded && name == p.o.Default && name == Builtin {
		err = p.loadOnce(name)
		p.problem.Store(&err)
		loaded = err == nil
	}
	switch {
	case err != nil:
		return errkind.Errorf(errkind.Precondition, "apparmor profile %q: %w", name, err)
	case !loaded:
		return errkind.Errorf(errkind.Precondition, "apparmor profile %q is not loaded on this node", name)
	}
	p.clear(name)
	return nil
}

// clear takes back what was told of the default profile: it is there.
func (p *Profiles) clear(name string) {
	if name == p.o.Default {
		p.problem.Store(new(error))
	}
}

// Problems tells of a default profile that could not be loaded.
func (p *Profiles) Problems() []string {
	if err := *p.problem.Load(); err != nil {
		return []string{fmt.Sprintf("AppArmor profile %s of containers without one of their own: %v", p.o.Default, err)}
	}
	return nil
}

// loaded looks at the kernel's list: a line for each profile, with its mode in
// parentheses after the name.
func (p *Profiles) loaded(name string) (bool, error) {
	text, err := os.ReadFile(filepath.Join("/", p.o.Root, "sys/kernel/security/apparmor/profiles"))
	if err != nil {
		return false, fmt.Errorf("the kernel's list of profiles: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		if i := strings.LastIndex(line, " ("); i >= 0 && line[:i] == name {
			return true, nil
		}
	}
	return false, nil
}

// loadOnce loads the profile, or waits for the load under way. A parser that
// hangs is waited for by nobody for ever, and run only once.
func (p *Profiles) loadOnce(name string) error {
	p.mu.Lock()
	l := p.loading
	if l == nil {
		l = &loading{done: make(chan struct{})}
		p.loading = l
		go func() {
			if there, err := p.loaded(name); err != nil || !there { // another load may have just ended
				l.err = p.o.Load(name)
			}
			p.mu.Lock()
			p.loading = nil
			p.mu.Unlock()
			close(l.done)
		}()
	}
	p.mu.Unlock()
	timer := time.NewTimer(loadTimeout)
	defer timer.Stop()
	select {
	case <-l.done:
		return l.err
	case <-timer.C:
		return errors.New("it is still being loaded")
	}
}
