// Package network connects pods to the node's CNI network.
package network

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/gantry-cri/gantry/internal/id"
)

// Options are what a Manager works with.
type Options struct {
	ConfDir  string        // watched for network configurations; need not exist
	BinDirs  []string      // searched for plugins, in this order
	StateDir string        // the journal and the plugins' cache; must survive a reboot
	Timeout  time.Duration // bounds one ADD, DEL or CHECK; 0 means two minutes
	Log      *slog.Logger
}

// Manager attaches pods to the network.
type Manager struct{ opts Options }

// Status is what there is to tell about the network, for people.
type Status struct {
	Network  string   // the name of the network that new pods get; "" if there is none
	ConfFile string   // the file that defines it
	Problems []string // configuration files that can't be used, each with its reason
	Pending  int      // attachments whose DEL failed and is being retried
	Damaged  []string // journal records that could not be read, where they were put aside
}

var errNotYet = errors.New("not written yet")

// New loads the journal and the configuration and watches the latter.
func New(opts Options) (*Manager, error) { return &Manager{opts}, nil }

// Close ends the watch and the background retries. Running plugins are killed.
func (m *Manager) Close() error { return nil }

// Add attaches a pod. It is idempotent: an attached pod's result is returned
// without running a plugin.
func (m *Manager) Add(ctx context.Context, pod Pod) (Result, error) { return Result{}, errNotYet }

// Del detaches a pod with the configuration it was attached with. Idempotent.
func (m *Manager) Del(ctx context.Context, pod id.Pod) error { return errNotYet }

// Check asks the plugins whether the pod's attachment is still as they made it.
func (m *Manager) Check(ctx context.Context, pod id.Pod) error { return errNotYet }

// Lookup returns what a completed Add gave to the pod. It never waits.
func (m *Manager) Lookup(pod id.Pod) (Result, bool) { return Result{}, false }

// Ready returns nil if a pod could be attached now, else why not. It never waits.
func (m *Manager) Ready() error { return errNotYet }

// Status reports details. It never waits.
func (m *Manager) Status() Status { return Status{} }

// Recover detaches the pods of a former daemon that are not live, and has the
// plugins collect their garbage. It may wait for plugins.
func (m *Manager) Recover(ctx context.Context, live func(id.Pod) bool) {}
