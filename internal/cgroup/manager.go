package cgroup

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"unicode"

	"github.com/gantry-cri/gantry/internal/errkind"
)

// Manager is who makes cgroups, and so says how they are named. The zero value
// is Cgroupfs.
type Manager string

// The managers, by their names in the configuration.
const (
	Cgroupfs Manager = "cgroupfs" // Gantry and the OCI runtimes make directories
	Systemd  Manager = "systemd"  // systemd makes slices and scopes, when asked over D-Bus
)

// scopePrefix begins the names of all scopes: gantry-<id>.scope.
const scopePrefix = "gantry"

const sliceSuffix, scopeSuffix = ".slice", ".scope"

// unitNameMax is the longest name of a unit, in bytes (systemd.unit(5)).
const unitNameMax = 255

// Parent is the cgroup of a pod for which a request names asked. With Systemd
// that is a slice, by its name or by its path; with Cgroupfs a path that is
// none. The error is of kind Invalid.
func (m Manager) Parent(asked string) (string, error) {
	if slices.Contains(strings.Split(asked, "/"), "..") {
		return "", errkind.Errorf(errkind.Invalid, "cgroup parent %q leads upwards", asked)
	}
	if strings.ContainsFunc(asked, unicode.IsControl) {
		return "", errkind.Errorf(errkind.Invalid, "cgroup parent %q has control characters", asked)
	}
	name := path.Base(asked)
	isSlice := strings.HasSuffix(name, sliceSuffix)
	if m != Systemd {
		if isSlice {
			return "", errkind.Errorf(errkind.Invalid, "cgroup parent %q is a slice of systemd, but the cgroup manager is cgroupfs", asked)
		}
		return Clean(asked), nil
	}
	if !isSlice {
		return "", errkind.Errorf(errkind.Invalid, "cgroup parent %q is no slice, but the cgroup manager is systemd", asked)
	}
	expanded, err := expandSlice(name)
	if err != nil {
		return "", err
	}
	if strings.Contains(asked, "/") && Clean(asked) != expanded && Clean(asked) != "/"+name {
		return "", errkind.Errorf(errkind.Invalid, "cgroup parent %q: slice %s is at %s", asked, name, expanded)
	}
	return expanded, nil
}

// Default is the cgroup of a pod for which the request names none: a child of
// configured, a path such as /gantry, which with Systemd stands for gantry.slice.
func (m Manager) Default(configured, pod string) (string, error) {
	if m != Systemd {
		return Clean(path.Join(configured, pod)), nil
	}
	words := strings.TrimSuffix(path.Base(configured), sliceSuffix)
	if !strings.HasSuffix(configured, sliceSuffix) {
		words = strings.ReplaceAll(strings.Trim(configured, "/"), "/", "-")
	}
	if words == "" || words == "-" {
		return expandSlice(pod + sliceSuffix)
	}
	return expandSlice(words + "-" + pod + sliceSuffix)
}

// Child is the cgroup that is called name in the pod's cgroup parent.
func (m Manager) Child(parent, name string) string {
	if m == Systemd {
		name = scopePrefix + "-" + name + scopeSuffix
	}
	return path.Join(parent, name)
}

// SpecPath is the cgroupsPath that makes an OCI runtime use Child(parent, name).
func (m Manager) SpecPath(parent, name string) string {
	if m == Systemd {
		return Unit(parent) + ":" + scopePrefix + ":" + name
	}
	return path.Join(parent, name)
}

// Unit is the name of the unit, with Systemd, of a cgroup that one of the
// above returned.
func Unit(cgroup string) string {
	if Clean(cgroup) == "/" {
		return "-" + sliceSuffix
	}
	return path.Base(cgroup)
}

// expandSlice is where systemd puts the slice of this name: each dash is one
// level. See systemd.slice(5).
func expandSlice(name string) (string, error) {
	if name == "-"+sliceSuffix {
		return "/", nil
	}
	words := strings.Split(strings.TrimSuffix(name, sliceSuffix), "-")
	if slices.Contains(words, "") || len(name) > unitNameMax || strings.ContainsFunc(name, notInUnitName) {
		return "", errkind.Errorf(errkind.Invalid, "%q is no name of a slice", name)
	}
	full, prefix := "", ""
	for _, word := range words {
		prefix += word
		full = fmt.Sprintf("%s/%s%s", full, prefix, sliceSuffix)
		prefix += "-"
	}
	return full, nil
}

// notInUnitName tells what systemd accepts in a unit's name (systemd.unit(5)).
func notInUnitName(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune(":-_.\\", r)
}
