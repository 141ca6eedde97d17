package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/gantry-cri/gantry/internal/container"
	"github.com/gantry-cri/gantry/internal/id"
	"github.com/gantry-cri/gantry/internal/oci"
	"github.com/gantry-cri/gantry/internal/statefile"
)

// wipeAfterReboot removes the records of an earlier boot, ours and the
// runtimes': none of their processes, mounts and namespaces exists any more, and
// their PIDs may be other processes' now. Their networks are given back by
// package network, whose journal survives.
func (m *Manager) wipeAfterReboot() error {
	file := filepath.Join(m.opts.RunRoot, "boot_id")
	known, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	boot := m.opts.Node.BootID
	if strings.TrimSpace(string(known)) == boot {
		return nil
	}
	if err == nil {
		m.log.Info("the node was rebooted; removing the records of the earlier boot")
		if err := m.forgetAll(); err != nil {
			return fmt.Errorf("remove the runtimes' records of an earlier boot: %w", err)
		}
		if err := os.RemoveAll(m.podsDir()); err != nil {
			return fmt.Errorf("remove the records of an earlier boot: %w", err)
		}
		if err := m.Prepare(); err != nil {
			return err
		}
	}
	return os.WriteFile(file, []byte(boot+"\n"), 0o600)
}

// forgetAll removes what the runtimes keep of our containers, without running
// them: they would look for the processes of that time.
func (m *Manager) forgetAll() error {
	pods, err := os.ReadDir(m.podsDir())
	if err != nil {
		return err
	}
	roots := make(map[string]bool)
	for _, rt := range m.Runtimes() {
		roots[rt.Root()] = true
	}
	var ids []string
	for _, pod := range pods {
		dir := filepath.Join(m.podsDir(), pod.Name())
		var rec Record
		if statefile.Read(filepath.Join(dir, recordFile), recordVer, &rec) == nil && filepath.IsAbs(rec.Runtime.Root) {
			roots[rec.Runtime.Root] = true
		}
		containers, err := os.ReadDir(filepath.Join(dir, container.ContainersIn))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, entry := range append(containers, pod) {
			if id.Valid(entry.Name()) {
				ids = append(ids, entry.Name())
			}
		}
	}
	for root := range roots {
		for _, ctr := range ids {
			if err := oci.Forget(root, ctr); err != nil {
				return err
			}
		}
	}
	return nil
}
