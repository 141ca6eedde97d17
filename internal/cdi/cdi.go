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
	known atomic.Pointer[known] // never nil
	// problems are of the last look at the directories: telling them waits for no disk.
	problems atomic.Pointer[[]string]
}

// known are the devices of some directories.
type known struct {
	dirs  []string
	open  sync.Once
	cache *cdi.Cache // set by open
}

// New returns the devices of dirs, later ones over earlier ones. Nothing is
// read yet.
func New(dirs []string) *Devices {
	d := &Devices{}
	d.Set(dirs)
	return d
}

// Set makes the devices of later containers those of dirs. Only one caller at a
// time.
func (d *Devices) Set(dirs []string) {
	if old := d.known.Load(); old == nil || !slices.Equal(old.dirs, dirs) {
		d.known.Store(&known{dirs: dirs})
		d.problems.Store(nil)
	}
}

// Inject adds the devices that a container asks for, in the field of the
// request or by annotations (cdi.k8s.io/NAME: DEVICE,...), to its
// specification. The kind of the error is Invalid for what is no name of a
// device, and NotFound for a device that no file has.
func (d *Devices) Inject(spec *rspec.Spec, config *runtimeapi.ContainerConfig) error {
	names, err := requested(config)
	if err != nil || len(names) == 0 {
		return err
	}
	k := d.known.Load()
	k.open.Do(func() {
		// It can't fail with these options; faulty files are told apart.
		k.cache, _ = cdi.NewCache(cdi.WithSpecDirs(k.dirs...), cdi.WithAutoRefresh(false))
	})
	_ = k.cache.Refresh() // told by the problems
	defer func() {
		faults := k.faults()
		d.problems.Store(&faults)
	}()
	if missing := k.missing(names); len(missing) > 0 {
		return errkind.Errorf(errkind.NotFound, "CDI device %s: no specification in %s has it%s",
			strings.Join(missing, ", "), strings.Join(k.dirs, ", "), k.hint())
	}
	if _, err := k.cache.InjectDevices(spec, names...); err != nil {
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

func (k *known) missing(names []string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool { return k.cache.GetDevice(name) != nil })
}

// hint points to faulty files, one of which may be the one that is looked for.
func (k *known) hint() string {
	faults := k.faults()
	if len(faults) == 0 {
		return ""
	}
	return fmt.Sprintf(" (but some can't be used: %s)", strings.Join(faults, "; "))
}

func (k *known) faults() []string {
	var out []string
	all := k.cache.GetErrors()
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
