package oci

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/internal/errkind"
)

// checkPropagation refuses a propagation that the mount holding the host path
// can't give, with the advice that its administrator needs.
func checkPropagation(m *runtimeapi.Mount, path string) error {
	if m.GetPropagation() == runtimeapi.MountPropagation_PROPAGATION_PRIVATE {
		return nil
	}
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return fmt.Errorf("mount %s: %w", m.GetContainerPath(), err)
	}
	at, shared, slave := mountOf(string(text), path)
	bidirectional := m.GetPropagation() == runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL
	if shared || slave && !bidirectional {
		return nil
	}
	return errkind.Errorf(errkind.Precondition,
		"mount %s: propagation %s needs %s to be a shared mount on the node, and it is not (mount --make-rshared %s)",
		m.GetContainerPath(), m.GetPropagation(), at, at)
}

// mountOf finds the mount point that holds path in the text of
// /proc/PID/mountinfo, and whether it is shared, or slave to a shared one.
func mountOf(mountinfo, path string) (at string, shared, slave bool) {
	for line := range strings.Lines(mountinfo) {
		before, _, ok := strings.Cut(line, " - ")
		f := strings.Fields(before)
		if !ok || len(f) < 6 {
			continue
		}
		point := unescape(f[4])
		inside := point == "/" || path == point || strings.HasPrefix(path, point+"/")
		if !inside || len(point) < len(at) {
			continue
		}
		at, shared, slave = point, false, false // a later mount on the same point covers an earlier one
		for _, tag := range f[6:] {
			shared = shared || strings.HasPrefix(tag, "shared:")
			slave = slave || strings.HasPrefix(tag, "master:")
		}
	}
	return at, shared, slave
}

// unescape undoes the octal escapes that the kernel writes for white space
// and backslashes.
func unescape(s string) string {
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				out.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		out.WriteByte(s[i])
	}
	return out.String()
}
