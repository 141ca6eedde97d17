package images

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// debs returns one line per package, with its version and checksum, of roots
// and of everything they need, as APT would download it now.
func debs(ctx context.Context, roots ...string) ([]string, error) {
	names, err := closure(ctx, roots)
	if err != nil {
		return nil, err
	}
	args := append([]string{"download", "--print-uris"}, names...)
	out, err := output(ctx, "", "apt-get", args...)
	if err != nil {
		return nil, err
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	slices.Sort(lines)
	return lines, nil
}

// closure returns roots and the real packages they depend on, transitively,
// except those that only their maintainer scripts or an administrator need.
func closure(ctx context.Context, roots []string) ([]string, error) {
	out, err := output(ctx, "", "apt-cache", append([]string{"depends", "--recurse", "--important"}, roots...)...)
	if err != nil {
		return nil, fmt.Errorf("%w (are APT's package lists there? apt-get update brings them)", err)
	}
	needs := dependencies(out)
	seen := map[string]bool{}
	queue := slices.Clone(roots)
	for len(queue) > 0 {
		name := queue[0]
		queue = queue[1:]
		if seen[name] || unneeded(name) {
			continue
		}
		seen[name] = true
		queue = append(queue, needs[name]...)
	}
	return slices.Sorted(maps.Keys(seen)), nil
}

// dependencies reads what apt-cache depends prints: a package's name in the
// first column, what it needs below it, indented. Virtual packages are in
// angle brackets and left out; "|" marks an alternative.
func dependencies(text string) map[string][]string {
	needs := map[string][]string{}
	name := ""
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, " ") {
			name = strings.TrimSpace(line)
			continue
		}
		dep, ok := strings.CutPrefix(strings.TrimSpace(line), "Depends: ")
		if ok && !strings.HasPrefix(dep, "<") {
			needs[name] = append(needs[name], dep)
		}
	}
	return needs
}

func unneeded(name string) bool {
	for _, prefix := range []string{"debconf", "iproute2", "dpkg", "perl", "gcc-", "init-system-helpers", "sysvinit", "lsb-base", "adduser", "media-types", "cdebconf"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// unpack downloads the packages of the lines that debs returned and adds the
// files of theirs that keep wants.
func (t *Tree) unpack(ctx context.Context, lines []string, keep func(string) bool) error {
	dir, err := os.MkdirTemp("", "gantry-debs-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := download(ctx, dir, lines); err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil {
		return err
	}
	if len(files) != len(lines) {
		return fmt.Errorf("APT brought %d of the %d packages asked for", len(files), len(lines))
	}
	for _, file := range files {
		if err := t.unpackFile(ctx, file, keep); err != nil {
			return fmt.Errorf("unpack %s: %w", filepath.Base(file), err)
		}
	}
	return nil
}

func (t *Tree) unpackFile(ctx context.Context, file string, keep func(string) bool) error {
	cmd := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", file)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	addErr := t.AddTar(out, keep)
	io.Copy(io.Discard, out) // the padding after the last member
	if err := cmd.Wait(); err != nil {
		return err
	}
	return addErr
}

// download fetches packages of the versions that lines name.
func download(ctx context.Context, dir string, lines []string) error {
	args := []string{"download", "-q", "-o", "APT::Sandbox::User=root"}
	for _, line := range lines {
		// 'URI' name_version_arch.deb size checksum; the epoch's colon is %3a.
		fields := strings.Fields(line)
		if len(fields) < 3 {
			return fmt.Errorf("unexpected line of apt-get download --print-uris: %q", line)
		}
		parts := strings.Split(fields[1], "_")
		if len(parts) != 3 {
			return fmt.Errorf("unexpected package file name %q", fields[1])
		}
		args = append(args, parts[0]+"="+strings.ReplaceAll(parts[1], "%3a", ":"))
	}
	_, err := output(ctx, dir, "apt-get", args...)
	return err
}

// output runs a command and returns what it printed; an error holds the end of
// what it said on stderr.
func output(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		tail := strings.TrimSpace(stderr.String())
		if len(tail) > 2000 {
			tail = tail[len(tail)-2000:]
		}
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, tail)
	}
	return stdout.String(), nil
}
