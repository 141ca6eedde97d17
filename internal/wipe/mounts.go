package wipe

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

const mountinfo = "/proc/self/mountinfo"

type mount struct{ at, kind string }

// parseMounts reads proc_pid_mountinfo(5).
func parseMounts(text string) []mount {
	var found []mount
	for line := range strings.Lines(text) {
		before, after, ok := strings.Cut(line, " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if ok && len(left) > 4 && len(right) > 0 {
			found = append(found, mount{at: unescape(left[4]), kind: right[0]})
		}
	}
	return found
}

// unescape undoes the octal escapes of space, tab, newline and backslash.
func unescape(path string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(path)
}

// own are the mounts that Gantry makes on the node: pins of network namespaces,
// and the one that the storage library makes of its directory onto itself.
func (s Scope) own(m mount) bool {
	return m.kind == "nsfs" || m.at == filepath.Join(resolved(s.Root), "storage", "overlay")
}

// foreignMounts are mount points below what is to be removed that Gantry has not
// made. The places themselves may be file systems of their own.
func (s Scope) foreignMounts() ([]string, error) {
	text, err := os.ReadFile(mountinfo)
	if err != nil {
		return nil, err
	}
	var places, found []string
	for _, place := range s.Places() {
		places = append(places, resolved(place))
	}
	for _, m := range parseMounts(string(text)) {
		if !s.own(m) && slices.ContainsFunc(places, func(place string) bool { return below(m.at, place) }) {
			found = append(found, m.at)
		}
	}
	return found, nil
}

// unmountOwn unmounts what is left of Gantry's own mounts, the latest first, but
// not those below keep.
func (s Scope) unmountOwn(keep string) []error {
	text, err := os.ReadFile(mountinfo)
	if err != nil {
		return []error{err}
	}
	var errs []error
	mounts := parseMounts(string(text))
	slices.Reverse(mounts)
	for _, m := range mounts {
		if !s.own(m) || keep != "" && below(m.at, resolved(keep)) || !below(m.at, resolved(s.Root)) && !below(m.at, resolved(s.RunRoot)) {
			continue
		}
		err := unix.Unmount(m.at, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("unmount %s: %w", m.at, err))
		}
	}
	return errs
}

// resolved is path as the kernel lists it; of a link that is to be removed only
// what leads to it counts.
func resolved(path string) string {
	dir, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return path
	}
	if info, err := os.Lstat(path); err == nil && info.IsDir() {
		return filepath.Join(dir, filepath.Base(path))
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	return filepath.Join(dir, filepath.Base(path))
}
