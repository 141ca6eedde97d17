package monitor

import (
	"bufio"
	"os"
	"strconv"
	"strings"
	"testing"
)

func itoa(i int) string { return strconv.Itoa(i) }

// TestProtocolConstants compares protocol.go with protocol.h, both ways.
func TestProtocolConstants(t *testing.T) {
	want := headerConstants(t, "../../monitor/protocol.h")
	got := goConstants(t, "protocol.go")
	for name, v := range want {
		if g, ok := got[name]; !ok || g != v {
			t.Errorf("%s is %d in C and %d in Go", name, v, g)
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("%s is not in protocol.h", name)
		}
	}
}

// headerConstants returns the numbers defined in a C header, as GMNAME without underscores.
func headerConstants(t *testing.T, path string) map[string]int {
	t.Helper()
	constants := map[string]int{}
	for _, f := range lines(t, path) {
		if len(f) == 3 && f[0] == "#define" && strings.HasPrefix(f[1], "GM_") {
			addConstant(t, constants, f[1], f[2])
		}
	}
	return constants
}

func goConstants(t *testing.T, path string) map[string]int {
	t.Helper()
	constants := map[string]int{}
	for _, f := range lines(t, path) {
		if len(f) == 3 && f[1] == "=" && strings.HasPrefix(f[0], "gm") {
			addConstant(t, constants, f[0], f[2])
		}
	}
	return constants
}

func addConstant(t *testing.T, constants map[string]int, name, value string) {
	t.Helper()
	n, err := strconv.Atoi(value)
	if err != nil {
		t.Errorf("%s: %v", name, err)
	}
	constants[strings.ToUpper(strings.ReplaceAll(name, "_", ""))] = n
}

func lines(t *testing.T, path string) [][]string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var all [][]string
	for s := bufio.NewScanner(f); s.Scan(); {
		all = append(all, strings.Fields(s.Text()))
	}
	if len(all) == 0 {
		t.Fatalf("%s is empty", path)
	}
	return all
}
