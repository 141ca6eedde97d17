package critest

import (
	"bufio"
	"fmt"
	"os"
	"regexp"
	"strings"
)

// A Skip is one line of the skip list.
type Skip struct {
	Pattern *regexp.Regexp
	Reason  string
}

// ReadSkips reads a skip list: empty lines and lines that begin with # aside,
// each is a regular expression, "  # ", and the reason, which must not be empty.
// A reason that begins with "unless FEATURE: " is none where the kernel has the
// feature: the line is left out there.
func ReadSkips(file string) ([]Skip, error) { return readSkips(file, hasFeature) }

// hasFeature reports whether this kernel has a feature that a skip list may name.
func hasFeature(name string) (bool, error) {
	files := map[string]string{"AppArmor": "/sys/kernel/security/apparmor/profiles"}
	file, ok := files[name]
	if !ok {
		return false, fmt.Errorf("%q is no feature that is known", name)
	}
	_, err := os.Stat(file)
	return err == nil, nil
}

func readSkips(file string, has func(feature string) (bool, error)) ([]Skip, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var skips []Skip
	lines := bufio.NewScanner(f)
	for number := 1; lines.Scan(); number++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		expression, reason, ok := strings.Cut(line, "  # ")
		if !ok || strings.TrimSpace(reason) == "" {
			return nil, fmt.Errorf("%s:%d: no reason given", file, number)
		}
		pattern, err := regexp.Compile(strings.TrimSpace(expression))
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", file, number, err)
		}
		reason, void, err := unless(reason, has)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", file, number, err)
		}
		if void {
			continue
		}
		skips = append(skips, Skip{Pattern: pattern, Reason: reason})
	}
	return skips, lines.Err()
}

// unless reads the beginning of a reason, if it is a condition, and reports whether
// the kernel makes the reason void.
func unless(reason string, has func(feature string) (bool, error)) (rest string, void bool, err error) {
	condition, ok := strings.CutPrefix(reason, "unless ")
	if !ok {
		return reason, false, nil
	}
	feature, rest, _ := strings.Cut(condition, ": ")
	if strings.TrimSpace(rest) == "" {
		return "", false, fmt.Errorf("no reason given beside %q", reason)
	}
	void, err = has(feature)
	return rest, void, err
}
