package selinux

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/gantry-cri/gantry/internal/errkind"
)

// relabelsAtOnce bounds how many volumes are labelled at the same time: so many
// that some large ones leave room for those of other pods.
const relabelsAtOnce = 64

// relabels are those under way.
type relabels struct {
	slots chan struct{}
	mu    *sync.Mutex
	under map[[2]string]*relabel // guarded by mu; by path and label
}

type relabel struct {
	done chan struct{} // closed at the end
	err  error         // set before
}

func newRelabels() relabels {
	return relabels{make(chan struct{}, relabelsAtOnce), new(sync.Mutex), make(map[[2]string]*relabel)}
}

// Relabel labels a volume, path, for a container with the label mount. It can
// take as long as a walk through all its files does, so nothing that others
// need may be held meanwhile. When ctx ends the walk goes on; a later call with
// the same volume and label joins it. The error's kind is Invalid for a
// directory of the node's own system, which nothing else could use afterwards.
// A file system without labels is no error.
func (n *Node) Relabel(ctx context.Context, path, mount string) error {
	if !n.enabled || mount == "" {
		return nil
	}
	path = filepath.Clean(path)
	if isSystem(path) {
		return errkind.Errorf(errkind.Invalid, "selinux_relabel: %s is the node's own: it is not relabelled", path)
	}
	r := n.begin(path, mount)
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return errkind.Errorf(errkind.Timeout, "selinux_relabel: %s: still under way: %w", path, ctx.Err())
	}
}

// begin starts a walk, or joins the one under way.
func (n *Node) begin(path, mount string) *relabel {
	key := [2]string{path, mount}
	n.mu.Lock()
	defer n.mu.Unlock()
	if r, ok := n.under[key]; ok {
		return r
	}
	r := &relabel{done: make(chan struct{})}
	n.under[key] = r
	go func() {
		n.slots <- struct{}{}
		err := n.kernel.Relabel(path, mount)
		<-n.slots
		if err != nil && !errors.Is(err, unix.ENOTSUP) {
			r.err = errkind.Errorf(errkind.Other, "selinux_relabel: %s: %w", path, err)
		}
		n.mu.Lock()
		delete(n.under, key)
		n.mu.Unlock()
		close(r.done)
	}()
	return r
}

var (
	// systemTrees are the node's with all that is below them.
	systemTrees = []string{"/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/proc", "/sbin", "/sys", "/usr"}
	// systemDirs hold what belongs to many.
	systemDirs = []string{"/", "/home", "/media", "/mnt", "/opt", "/root", "/run", "/srv", "/tmp",
		"/var", "/var/cache", "/var/lib", "/var/log", "/var/run", "/var/tmp", "/var/lib/kubelet", "/var/lib/kubelet/pods"}
)

func isSystem(path string) bool {
	return slices.Contains(systemDirs, path) || slices.ContainsFunc(systemTrees, func(tree string) bool {
		return path == tree || strings.HasPrefix(path, tree+"/")
	})
}
