package coverage

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const (
	root  = "../.."
	table = root + "/docs/cri-coverage.md"
)

// line is one line of a table.
type line struct {
	name, word, reason string
	files, tests       []string
}

// readTables returns the lines below each of the document's second headings.
func readTables(text string) (map[string][]line, error) {
	tables := make(map[string][]line)
	heading := ""
	for row := range strings.Lines(text) {
		row = strings.TrimSpace(row)
		if h, ok := strings.CutPrefix(row, "## "); ok {
			heading = h
		}
		if heading == "" || !strings.HasPrefix(row, "|") || strings.HasPrefix(row, "|---") {
			continue
		}
		cells := strings.Split(strings.Trim(row, "|"), "|")
		if len(cells) != 4 {
			return nil, fmt.Errorf("%q has %d cells, not 4", row, len(cells))
		}
		if strings.TrimSpace(cells[1]) == "what" {
			continue
		}
		word, reason, _ := strings.Cut(strings.TrimSpace(cells[1]), ": ")
		tables[heading] = append(tables[heading], line{
			name: strings.TrimSpace(cells[0]), word: word, reason: reason,
			files: strings.Fields(cells[2]), tests: strings.Fields(cells[3]),
		})
	}
	return tables, nil
}

// fault says what is wrong with a line; "" if nothing is. asked is whether it
// is about something that a client can ask for.
func (l line) fault(asked bool) string {
	switch l.word {
	case "honoured", "refused":
		if !asked {
			return l.word + " is said of requests"
		}
	case "accepted":
		if !asked || l.reason == "" {
			return "accepted is said of requests, with a reason"
		}
		return ""
	case "reported":
		if asked {
			return "reported is said of responses"
		}
	case "absent":
		if asked || l.reason == "" {
			return "absent is said of responses, with a reason"
		}
		return ""
	case "not yet":
		if l.reason == "" {
			return "not yet needs a reason"
		}
		return ""
	default:
		return fmt.Sprintf("%q is none of the words", l.word)
	}
	if len(l.files) == 0 || len(l.tests) == 0 {
		return l.word + " needs a file and a test"
	}
	return ""
}

// TestEveryFieldHasALine: the tables are what the API has, no more and no less,
// in order, and each line says enough.
func TestEveryFieldHasALine(t *testing.T) {
	cri, err := readAPI()
	if err != nil {
		t.Fatal(err)
	}
	tables := load(t)
	for _, tt := range []struct {
		heading string
		want    []string
		asked   func(string) bool
	}{
		{"RPCs", cri.rpcs, func(string) bool { return true }},
		{"Fields", cri.fields, func(name string) bool { return cri.asked[name] }},
	} {
		var names []string
		for _, l := range tables[tt.heading] {
			names = append(names, l.name)
			if !slices.Contains(tt.want, l.name) {
				t.Errorf("%s has a line and is not in the API", l.name)
			} else if fault := l.fault(tt.asked(l.name)); fault != "" {
				t.Errorf("%s: %s", l.name, fault)
			}
		}
		for _, name := range tt.want {
			if !slices.Contains(names, name) {
				t.Errorf("%s has no line", name)
			}
		}
		if !slices.IsSorted(names) || len(slices.Compact(slices.Clone(names))) != len(names) {
			t.Errorf("%s: the lines are not sorted, or one is there twice", tt.heading)
		}
	}
	if len(cri.rpcs) < 40 || len(cri.fields) < 400 {
		t.Errorf("the API has only %d RPCs and %d fields", len(cri.rpcs), len(cri.fields))
	}
}

// TestEveryNameExists: the files and tests that the lines name.
func TestEveryNameExists(t *testing.T) {
	known := tests(t)
	for _, lines := range load(t) {
		for _, l := range lines {
			for _, file := range l.files {
				if info, err := os.Stat(filepath.Join(root, file)); err != nil || !info.Mode().IsRegular() {
					t.Errorf("%s: there is no file %s", l.name, file)
				}
			}
			for _, test := range l.tests {
				if !known[test] {
					t.Errorf("%s: there is no test %s", l.name, test)
				}
			}
		}
	}
}

// TestFaultsAreFound: the checks above can fail.
func TestFaultsAreFound(t *testing.T) {
	file, test := []string{"a.go"}, []string{"TestA"}
	for _, tt := range []struct {
		l     line
		asked bool
		ok    bool
	}{
		{line{word: "honoured", files: file, tests: test}, true, true},
		{line{word: "honoured", files: file, tests: test}, false, false},
		{line{word: "honoured", files: file}, true, false},
		{line{word: "refused", tests: test}, true, false},
		{line{word: "ignored", files: file, tests: test}, true, false},
		{line{word: "accepted"}, true, false},
		{line{word: "accepted", reason: "why"}, true, true},
		{line{word: "reported", files: file, tests: test}, false, true},
		{line{word: "reported", files: file, tests: test}, true, false},
		{line{word: "absent", reason: "why"}, true, false},
		{line{word: "not yet"}, true, false},
		{line{word: "not yet", reason: "what"}, false, true},
	} {
		if fault := tt.l.fault(tt.asked); (fault == "") != tt.ok {
			t.Errorf("%+v, asked %t: %q", tt.l, tt.asked, fault)
		}
	}
	if _, err := readTables("## Fields\n| a | honoured | x |\n"); err == nil {
		t.Error("a line with too few cells passes")
	}
}

func load(t *testing.T) map[string][]line {
	t.Helper()
	text, err := os.ReadFile(table)
	if err != nil {
		t.Fatal(err)
	}
	tables, err := readTables(string(text))
	if err != nil {
		t.Fatal(err)
	}
	return tables
}

var testFunction = regexp.MustCompile(`(?m)^func (Test\w+)\(t \*testing\.T\)`)

// tests are the names of all test functions of the repository.
func tests(t *testing.T) map[string]bool {
	t.Helper()
	found := make(map[string]bool)
	for _, dir := range []string{"internal", "test", "cmd"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			for _, match := range testFunction.FindAllStringSubmatch(string(text), -1) {
				found[match[1]] = true
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return found
}
