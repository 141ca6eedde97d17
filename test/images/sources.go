package images

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// sources is a private APT state that knows the source packages of the
// distribution: most machines list binary packages only, and the machine's own
// APT configuration is not ours to change.
type sources struct {
	options []string
}

// openSources prepares the state below dir and fetches the lists.
func openSources(ctx context.Context, dir string) (*sources, error) {
	for _, sub := range []string{"lists/partial", "cache"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, err
		}
	}
	list := filepath.Join(dir, "sources.list")
	if err := writeSourceList(ctx, list); err != nil {
		return nil, err
	}
	s := &sources{options: []string{
		"-o", "Dir::Etc::SourceList=" + list,
		"-o", "Dir::Etc::SourceParts=/dev/null",
		"-o", "Dir::State::Lists=" + filepath.Join(dir, "lists"),
		"-o", "Dir::Cache=" + filepath.Join(dir, "cache"),
		"-o", "APT::Sandbox::User=root",
	}}
	_, err := s.run(ctx, "", "update", "-q")
	return s, err
}

func (s *sources) run(ctx context.Context, dir string, args ...string) (string, error) {
	return output(ctx, dir, "apt-get", append(append([]string{}, s.options...), args...)...)
}

// writeSourceList writes one deb-src line for each place where the machine
// gets the distribution's own packages from.
func writeSourceList(ctx context.Context, file string) error {
	out, err := output(ctx, "", "apt-get", "indextargets",
		"--format", "$(ORIGIN) $(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages")
	if err != nil {
		return err
	}
	var text strings.Builder
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		if len(f) != 4 || f[3] != "main" || (f[0] != "Debian" && f[0] != "Ubuntu") {
			continue
		}
		fmt.Fprintf(&text, "deb-src %s%s %s %s\n", keyring(f[0]), f[1], f[2], f[3])
	}
	if text.Len() == 0 {
		return fmt.Errorf("APT lists no packages of the distribution: apt-get update brings them")
	}
	return os.WriteFile(file, []byte(text.String()), 0o644)
}

func keyring(origin string) string {
	file := "/usr/share/keyrings/" + strings.ToLower(origin) + "-archive-keyring.gpg"
	if _, err := os.Stat(file); err != nil {
		return ""
	}
	return "[signed-by=" + file + "] "
}
