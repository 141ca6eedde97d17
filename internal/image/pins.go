package image

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"go.podman.io/image/v5/docker/reference"
)

// pins are the images that must not be collected.
type pins struct {
	names    map[string]bool // normalized
	patterns []*regexp.Regexp
}

// parsePins reads names, and patterns in which * stands for anything.
func parsePins(list []string) (pins, error) {
	p := pins{names: map[string]bool{}}
	for _, pin := range list {
		if strings.Contains(pin, "*") {
			parts := strings.Split(pin, "*")
			for i, part := range parts {
				parts[i] = regexp.QuoteMeta(part)
			}
			p.patterns = append(p.patterns, regexp.MustCompile("^"+strings.Join(parts, ".*")+"$"))
			continue
		}
		named, err := reference.ParseDockerRef(pin)
		if err != nil {
			return p, fmt.Errorf("%q: %w", pin, err)
		}
		p.names[named.String()] = true
	}
	return p, nil
}

// match reports whether a normalized name is pinned.
func (p pins) match(name string) bool {
	return p.names[name] || slices.ContainsFunc(p.patterns, func(re *regexp.Regexp) bool { return re.MatchString(name) })
}
