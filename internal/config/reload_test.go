package config

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// otherwise returns the defaults with a key set to something else.
func otherwise(t *testing.T, k key[Config]) Config {
	t.Helper()
	c := Default()
	for _, args := range [][]string{{"/x"}, {"x"}, {"7m"}, {"70000"}, {"2000000"}, {"3"}, {"warn"}, {"json"}, {"systemd"}, {"localhost:1"}} {
		if k.value.setFlag(&c, args) == nil && len(differing("", keys(), Default(), c)) == 1 {
			return c
		}
		c = Default()
	}
	t.Fatalf("%s: no other value is known", k.name)
	return c
}

// TestTakeOver: of each key the new value is taken, or the key is told.
func TestTakeOver(t *testing.T) {
	for _, k := range keys() {
		next := otherwise(t, k)
		merged, pending := Default().TakeOver(next)
		if k.change == live {
			if diff := cmp.Diff(next, merged); diff != "" || len(pending) > 0 {
				t.Errorf("%s: pending %v; %s", k.name, pending, diff)
			}
		} else if diff := cmp.Diff(Default(), merged); diff != "" || !slices.Equal(pending, []string{k.name}) {
			t.Errorf("%s: pending %v; %s", k.name, pending, diff)
		}
		if have := Changes(Default(), next); !slices.Equal(have, []string{k.name}) {
			t.Errorf("%s: changes %v", k.name, have)
		}
	}
	for _, k := range runtimeKeys() {
		if k.change != live {
			t.Errorf("%s: TakeOver takes runtimes as a whole", k.name)
		}
	}
}

func TestTakeOverOfRuntimes(t *testing.T) {
	before, next := Default(), Default()
	before.Runtimes = map[string]Runtime{"same": {Path: "/s"}, "gone": {Path: "/g"}, "changed": {Path: "/c"}}
	next.Runtimes = map[string]Runtime{"same": {Path: "/s"}, "new": {Path: "/n"}, "changed": {Path: "/c", Args: []string{"-x"}}}
	next.RunRoot = "/elsewhere"
	merged, pending := before.TakeOver(next)
	if diff := cmp.Diff(next.Runtimes, merged.Runtimes); diff != "" || merged.RunRoot != before.RunRoot || !slices.Equal(pending, []string{"run_root"}) {
		t.Errorf("run root %s, pending %v; %s", merged.RunRoot, pending, diff)
	}
	want := []string{"runtimes.changed.args", "runtimes.gone", "runtimes.new"}
	if have := Changes(before, merged); !slices.Equal(have, want) {
		t.Errorf("changes %v, want %v", have, want)
	}
	if !before.Runtimes["same"].Same(next.Runtimes["same"]) || before.Runtimes["changed"].Same(next.Runtimes["changed"]) {
		t.Error("Same")
	}
	if len(before.Runtimes) != 3 || len(next.Runtimes) != 3 {
		t.Error("a configuration was changed")
	}
}

// TestPairsChangeTogether: what validate looks at together is taken over together,
// or else the merged configuration could be one that it refuses.
func TestPairsChangeTogether(t *testing.T) {
	for _, pair := range [][2]string{{"root", "run_root"}, {"pause_image", "pause_command"}, {"stream_tls_cert", "stream_tls_key"}, {"cgroup_manager", "cgroup_parent"}} {
		a, _ := find(keys(), pair[0])
		b, _ := find(keys(), pair[1])
		if a.change != b.change {
			t.Errorf("%s and %s", a.name, b.name)
		}
	}
}

// TestDocsTellWhatNeedsARestart: conf/gantry.toml is the table's (see
// TestDefaultFileIsTheTable); the list for people in trouble is kept by hand.
func TestDocsTellWhatNeedsARestart(t *testing.T) {
	text, err := os.ReadFile("../../docs/troubleshooting.md")
	if err != nil {
		t.Fatal(err)
	}
	_, list, _ := strings.Cut(string(text), "\n* **A restart is needed for** ")
	list, _, _ = strings.Cut(list, "\n")
	var have, want []string
	for _, m := range regexp.MustCompile("`([a-z_]+)`").FindAllStringSubmatch(list, -1) {
		have = append(have, m[1])
	}
	for _, k := range keys() {
		if k.change == restart {
			want = append(want, k.name)
		}
		if told := strings.Contains(k.text(), restartDoc); told != (k.change == restart) {
			t.Errorf("%s: documentation %q", k.name, k.text())
		}
	}
	if diff := cmp.Diff(want, have); diff != "" {
		t.Errorf("docs/troubleshooting.md: %s", diff)
	}
}

// TestRunRootOfABadConfiguration: a daemon can be found whose files have been
// spoiled since it started.
func TestRunRootOfABadConfiguration(t *testing.T) {
	for name, tc := range map[string]struct {
		main, drop string
		args       []string
		want       string
	}{
		"another key":  {"run_root = \"/a\"\nlog_level = 3", "", nil, "/a"},
		"another file": {"run_root = \"/a\"", "x = = 3", nil, "/a"},
		"the file":     {"x = = 3", "run_root = \"/b\"", nil, "/b"},
		"flag":         {"x = = 3", "", []string{"--run-root=/c"}, "/c"},
		"itself":       {"run_root = 3", "", nil, Default().RunRoot},
	} {
		flags, err := parseFlags(writeFiles(t, map[string]string{"gantry.toml": tc.main, "conf.d/1.toml": tc.drop}), tc.args...)
		if err != nil {
			t.Fatal(err)
		}
		have, err := RunRoot(flags)
		if have != tc.want || err == nil {
			t.Errorf("%s: %q, %v", name, have, err)
		}
	}
}
