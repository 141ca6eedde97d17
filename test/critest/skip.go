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
func ReadSkips(file string) ([]Skip, error) {
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
		skips = append(skips, Skip{Pattern: pattern, Reason: reason})
	}
	return skips, lines.Err()
}
