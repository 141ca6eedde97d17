package sandbox

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gantry-cri/gantry/internal/cgroup"
	"github.com/gantry-cri/gantry/internal/container"
	"github.com/gantry-cri/gantry/internal/id"
	"github.com/gantry-cri/gantry/internal/network"
	"github.com/gantry-cri/gantry/internal/oci"
)

// endByForce ends a pod of which nothing but the name is relied on: ids are
// random and never used again, so a cgroup, a runtime's record or a writable
// layer with such a name is the pod's. Its directory goes last. Its network, but
// for the namespace, is left alone.
func (m *Manager) endByForce(ctx context.Context, pod id.Pod) error {
	ids := append(m.containersIn(pod), id.Container(pod))
	if err := m.killByName(ctx, pod, ids); err != nil {
		return err
	}
	if err := m.forgetByName(ctx, ids); err != nil {
		return err
	}
	dir := filepath.Join(m.podsDir(), string(pod))
	if err := network.RemoveNetNS(m.NetNS(pod)); err != nil {
		return err
	}
	for _, ctr := range ids {
		if err := m.opts.Storage.RemoveRootFS(ctr); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove the pod's directory: %w", err)
	}
	return nil
}

// containersIn are the containers that have directories in the pod's.
func (m *Manager) containersIn(pod id.Pod) []id.Container {
	entries, err := os.ReadDir(filepath.Join(m.podsDir(), string(pod), container.ContainersIn))
	if err != nil {
		return nil // there is none, or nothing to be found in it
	}
	var out []id.Container
	for _, e := range entries {
		if id.Valid(e.Name()) {
			out = append(out, id.Container(e.Name()))
		}
	}
	return out
}

// killByName ends what is in the cgroups that are named after the pod and its
// containers, wherever they are, and removes them.
func (m *Manager) killByName(ctx context.Context, pod id.Pod, ids []id.Container) error {
	found, err := cgroup.Find(m.opts.Node, func(name string) bool { return namedAfter(name, pod, ids) })
	if err != nil {
		return err
	}
	var errs []error
	for _, path := range found {
		err := cgroup.KillAll(ctx, m.opts.Node, path)
		if err == nil {
			err = cgroup.Remove(ctx, m.opts.Node, path)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// namedAfter tells whether a cgroup has the name of the pod, its monitor, or one
// of the containers, with either manager.
func namedAfter(name string, pod id.Pod, ids []id.Container) bool {
	if strings.HasSuffix(name, "-"+string(pod)+".slice") {
		return true // the pod's own
	}
	for _, manager := range []cgroup.Manager{cgroup.Cgroupfs, cgroup.Systemd} {
		if name == manager.Child("", string(pod)+"-monitor") {
			return true
		}
		if slices.ContainsFunc(ids, func(ctr id.Container) bool { return name == manager.Child("", string(ctr)) }) {
			return true
		}
	}
	return false
}

// forgetByName lets every runtime forget the containers that it knows. The files
// of one that does not are removed without it.
func (m *Manager) forgetByName(ctx context.Context, ids []id.Container) error {
	var errs []error
	for _, rt := range m.runtimes() {
		works := true
		for _, ctr := range ids {
			known, err := filepath.Glob(filepath.Join(rt.Root(), string(ctr)+"*"))
			if err != nil || len(known) == 0 {
				continue
			}
			if works = works && m.forgets(ctx, rt, ctr); !works {
				errs = append(errs, oci.Forget(rt.Root(), string(ctr)))
			}
		}
	}
	return errors.Join(errs...)
}

// forgets reports whether a runtime could forget a container of which nothing runs.
func (m *Manager) forgets(ctx context.Context, rt *oci.Runtime, ctr id.Container) bool {
	ctx, cancel := context.WithTimeout(ctx, m.settings.Load().RuntimeTimeout)
	defer cancel()
	err := rt.Delete(ctx, string(ctr), true)
	if err != nil {
		m.log.Warn("a runtime does not forget a container of which nothing runs; its files are removed", "container", ctr, "err", err)
	}
	return err == nil
}

// runtimes are those of the configuration, and those that recovered pods were
// made with.
func (m *Manager) runtimes() []*oci.Runtime {
	m.pins.Lock()
	defer m.pins.Unlock()
	return slices.AppendSeq(slices.Collect(maps.Values(m.pins.known)), maps.Values(m.Runtimes()))
}
