// Package cdi adds CDI devices to OCI specifications. The specification files
// of the devices are read whenever a container asks for a device: they are few
// and small, and what is read is never out of date.
// See https://github.com/cncf-tags/container-device-interface/blob/main/SPEC.md
package cdi

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	rspec "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"tags.cncf.io/container-device-interface/pkg/cdi"
	"tags.cncf.io/container-device-interface/pkg/parser"

	"github.com/gantry-cri/gantry/internal/errkind"
)

// Devices are the CDI devices of some directories. It is safe for concurrent use.
type Devices struct {
	dirs []string

	open  sync.Once
	cache *cdi.Cache // set by open
	// problems are of the last look at the directories: telling them waits for no disk.
	problems atomic.Pointer[[]string]
}

// New returns the devices of dirs, later ones over earlier ones. Nothing is
// read yet.
func New(dirs []string) *Devices { return &Devices{dirs: dirs} }

// Inject adds the devices that a container asks for, in the field of the
// request or by annotations (cdi.k8s.io/NAME: DEVICE,...), to its
// specification. The kind of the error is Invalid for what is no name of a
// device, and NotFound for a device that no file has.
func (d *Devices) Inject(spec *rspec.Spec, config *runtimeapi.ContainerConfig) error {
	names, err := requested(config)
	if err != nil || len(names) == 0 {
		return err
	}
	d.open.Do(func() {
		// It can't fail with these options; faulty files are told apart.
		d.cache, _ = cdi.NewCache(cdi.WithSpecDirs(d.dirs...), cdi.WithAutoRefresh(false))
	})
	_ = d.cache.Refresh() // told by noteProblems
	defer d.noteProblems()
	if missing := d.missing(names); len(missing) > 0 {
		return errkind.Errorf(errkind.NotFound, "CDI device %s: no specification in %s has it%s",
			strings.Join(missing, ", "), strings.Join(d.dirs, ", "), d.hint())
	}
	if _, err := d.cache.InjectDevices(spec, names...); err != nil {
		return errkind.Errorf(errkind.Invalid, "CDI devices %s: %w", strings.Join(names, ", "), err)
	}
	return nil
}

// Problems are the faults of the specification files, as of the last request
// for a device.
func (d *Devices) Problems() []string {
	if p := d.problems.Load(); p != nil {
		return *p
	}
	return nil
}

func (d *Devices) missing(names []string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool { return d.cache.GetDevice(name) != nil })
}

// hint points to faulty files, one of which may be the one that is looked for.
func (d *Devices) hint() string {
	faults := d.faults()
	if len(faults) == 0 {
		return ""
	}
	return fmt.Sprintf(" (but some can't be used: %s)", strings.Join(faults, "; "))
}

func (d *Devices) noteProblems() {
	faults := d.faults()
	d.problems.Store(&faults)
}

func (d *Devices) faults() []string {
	var out []string
	all := d.cache.GetErrors()
	for _, file := range slices.Sorted(maps.Keys(all)) {
		for _, err := range all[file] {
			out = append(out, fmt.Sprintf("CDI specification %s: %v", file, err))
		}
	}
	return out
}

// requested are the names of the devices, each once: those of the field first.
func requested(config *runtimeapi.ContainerConfig) ([]string, error) {
	var names []string
	for _, device := range config.GetCDIDevices() {
		if _, _, _, err := parser.ParseQualifiedName(device.GetName()); err != nil {
			return nil, errkind.Errorf(errkind.Invalid, "CDI_devices: %w", err)
		}
		names = append(names, device.GetName())
	}
	_, annotated, err := cdi.ParseAnnotations(config.GetAnnotations())
	if err != nil {
		return nil, errkind.Errorf(errkind.Invalid, "CDI devices in annotations: %w", err)
	}
	slices.Sort(annotated) // they come in no order
	for _, name := range annotated {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names, nil
}
