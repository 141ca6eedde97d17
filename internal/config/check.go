package config

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// socketPathMax is the longest path that a unix socket can be bound to
// (unix(7): sun_path holds 108 bytes with the terminating zero).
const socketPathMax = 107

func absolute(path string) error {
	switch {
	case !filepath.IsAbs(path):
		return fmt.Errorf("want an absolute path, have %q", path)
	case strings.ContainsFunc(path, unicode.IsControl):
		return fmt.Errorf("a path must not have control characters: %q", path)
	case slices.Contains(strings.Split(path, "/"), ".."):
		return fmt.Errorf("a path must not have .. in it: %q", path)
	}
	return nil
}

func socket(path string) error {
	if err := absolute(path); err != nil {
		return err
	}
	if len(path) > socketPathMax {
		return fmt.Errorf("a socket's path can have %d bytes, this has %d: %q", socketPathMax, len(path), path)
	}
	return nil
}

// hostPort accepts host:port; the host may be empty, which is every address.
func hostPort(address string) error {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("%q is not host:port", address)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("%q: the port is not a number from 1 to 65535", address)
	}
	return nil
}

func orEmpty(check func(string) error) func(string) error {
	return func(s string) error {
		if s == "" {
			return nil
		}
		return check(s)
	}
}

func each(check func(string) error) func([]string) error {
	return func(list []string) error {
		for _, s := range list {
			if err := check(s); err != nil {
				return err
			}
		}
		return nil
	}
}

func notEmpty(list []string) error {
	if len(list) == 0 {
		return fmt.Errorf("want at least one")
	}
	return nil
}

// imagePattern accepts what may name images: a name, or one with *.
func imagePattern(s string) error {
	if s == "" || strings.ContainsFunc(s, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }) {
		return fmt.Errorf("want an image's name, or a pattern with *, have %q", s)
	}
	return nil
}

// host accepts an address or a host name to listen on, without a port.
func host(s string) error {
	if _, err := netip.ParseAddr(s); err == nil {
		return nil
	}
	if s == "" || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) && r != '.' && r != '-' }) {
		return fmt.Errorf("want an address or a host name without a port, have %q", s)
	}
	return nil
}

func oneOf(words ...string) func(string) error {
	return func(s string) error {
		if !slices.Contains(words, s) {
			return fmt.Errorf("want one of %s, have %q", strings.Join(words, ", "), s)
		}
		return nil
	}
}

func positive(d time.Duration) error {
	if d <= 0 {
		return fmt.Errorf("want a duration above zero, have %q", short(d))
	}
	return nil
}

func between(low, high int64) func(int64) error {
	return func(n int64) error {
		if n < low || n > high {
			return fmt.Errorf("want %d to %d, have %d", low, high, n)
		}
		return nil
	}
}

func unlimitedOr(low int64) func(int64) error {
	return func(n int64) error {
		if n != -1 && n < low {
			return fmt.Errorf("want -1 or at least %d, have %d", low, n)
		}
		return nil
	}
}

// handlerName accepts what can be a directory's name and a word on a command
// line, and no more.
func handlerName(name string) error {
	ok := name != "" && len(name) <= 63 && name[0] != '.' && name[0] != '-'
	for _, r := range name {
		ok = ok && (r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-", r))
	}
	if !ok {
		return fmt.Errorf("a runtime's name has up to 63 letters, digits, dots, dashes and underscores: %q", name)
	}
	return nil
}

// globalOption accepts an option of a runtime's binary, with its value in the
// same word. What the daemon itself tells the runtime is not to be told twice.
func globalOption(s string) error {
	name, _, _ := strings.Cut(strings.TrimLeft(s, "-"), "=")
	switch {
	case !strings.HasPrefix(s, "-") || name == "" || strings.ContainsRune(s, 0):
		return fmt.Errorf("want an option such as --debug or --platform=systrap, have %q", s)
	case name == "root":
		return fmt.Errorf("%q: the key root is for that", s)
	}
	return nil
}

func annotationPrefix(s string) error {
	if s == "" || strings.ContainsFunc(s, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }) {
		return fmt.Errorf("want the beginning of an annotation's key, have %q", s)
	}
	return nil
}

// profileName accepts the name of an AppArmor profile, which is often a path.
func profileName(s string) error {
	if s == "" || s == "unconfined" || len(s) > 255 || strings.ContainsFunc(s, unicode.IsControl) {
		return fmt.Errorf("want the name of a profile, have %q", s)
	}
	return nil
}
