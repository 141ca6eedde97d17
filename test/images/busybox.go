package images

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// packagedBusybox adds the distribution's own static busybox. It is quick to
// have, and lacks a few applets that critest needs.
func (t *Tree) packagedBusybox(ctx context.Context, line string) error {
	deb := NewTree()
	err := deb.unpack(ctx, []string{line}, func(name string) bool { return name == "usr/bin/busybox" })
	if err != nil {
		return err
	}
	found := deb.entries["usr/bin/busybox"].data
	if found == nil {
		return fmt.Errorf("busybox-static holds no /bin/busybox")
	}
	return t.addBusybox(ctx, found)
}

// addBusybox adds busybox and every applet of it as a hard link: a path that a
// container masks must not mask the shell with it.
func (t *Tree) addBusybox(ctx context.Context, program []byte) error {
	dir, err := os.MkdirTemp("", "gantry-busybox-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "busybox")
	if err := os.WriteFile(file, program, 0o755); err != nil {
		return err
	}
	list, err := output(ctx, "", file, "--list")
	if err != nil {
		return err
	}
	t.File("bin/busybox", 0o755, program)
	for _, applet := range strings.Fields(list) {
		if applet != "busybox" {
			t.HardLink("bin/"+applet, "bin/busybox")
		}
	}
	return nil
}

// busybox compiles busybox with every applet from the source package and
// returns the static program. It takes the better part of a minute.
func (s *sources) busybox(ctx context.Context) ([]byte, error) {
	dir, err := os.MkdirTemp("", "gantry-busybox-src-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if _, err := s.run(ctx, dir, "source", "-q", "busybox"); err != nil {
		return nil, err
	}
	trees, err := filepath.Glob(filepath.Join(dir, "busybox-*/Config.in"))
	if err != nil || len(trees) != 1 {
		return nil, fmt.Errorf("the busybox source package unpacked to %q (%w)", trees, err)
	}
	src := filepath.Dir(trees[0])
	if _, err := output(ctx, src, "make", "defconfig"); err != nil {
		return nil, err
	}
	if err := configureBusybox(filepath.Join(src, ".config")); err != nil {
		return nil, err
	}
	if err := makeQuietly(ctx, src); err != nil {
		return nil, fmt.Errorf("compile busybox: %w", err)
	}
	return os.ReadFile(filepath.Join(src, "busybox"))
}

// configureBusybox makes the program static and leaves out what does not
// compile: tc uses kernel headers that are gone.
func configureBusybox(file string) error {
	config, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	text := strings.NewReplacer(
		"# CONFIG_STATIC is not set", "CONFIG_STATIC=y",
		"CONFIG_TC=y", "# CONFIG_TC is not set",
		// These reach for instructions that not every assembler knows.
		"CONFIG_SHA1_HWACCEL=y", "# CONFIG_SHA1_HWACCEL is not set",
		"CONFIG_SHA256_HWACCEL=y", "# CONFIG_SHA256_HWACCEL is not set",
	).Replace(string(config))
	return os.WriteFile(file, []byte(text), 0o644)
}

func makeQuietly(ctx context.Context, dir string) error {
	cmd := exec.CommandContext(ctx, "make", "-s", fmt.Sprintf("-j%d", runtime.NumCPU()))
	cmd.Dir = dir
	// A make above us must not pass its flags or its job server on.
	cmd.Env = append(os.Environ(), "MAKEFLAGS=", "MFLAGS=", "MAKELEVEL=")
	out, err := cmd.CombinedOutput()
	if err != nil {
		if len(out) > 3000 {
			out = out[len(out)-3000:]
		}
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}
