package stats

import "bytes"

// number parses a decimal number, with spaces around it. Words such as "max"
// are none.
func number(text []byte) (uint64, bool) {
	text = bytes.TrimSpace(text)
	if len(text) == 0 || len(text) > 20 {
		return 0, false
	}
	var n uint64
	for _, c := range text {
		if c < '0' || c > '9' {
			return 0, false
		}
		next := n*10 + uint64(c-'0')
		if next/10 != n {
			return 0, false
		}
		n = next
	}
	return n, true
}

// pairs calls do for each line "KEY NUMBER".
func pairs(text []byte, do func(key []byte, n uint64)) {
	for len(text) > 0 {
		var line []byte
		line, text = cutLine(text)
		if i := bytes.IndexByte(line, ' '); i > 0 {
			if n, ok := number(line[i+1:]); ok {
				do(line[:i], n)
			}
		}
	}
}

func cutLine(text []byte) (line, rest []byte) {
	if i := bytes.IndexByte(text, '\n'); i >= 0 {
		return text[:i], text[i+1:]
	}
	return text, nil
}

// limit parses a limit: false for none, which version 2 writes as "max" and
// version 1 as the largest number of pages that fits.
func limit(text []byte) (uint64, bool) {
	n, ok := number(text)
	if n >= 1<<62 {
		return 0, false
	}
	return n, ok
}

// sub is a - b, or zero where that is negative: the two were not read at once.
func sub(a, b uint64) uint64 {
	if b > a {
		return 0
	}
	return a - b
}
