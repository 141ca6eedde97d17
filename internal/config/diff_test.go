package config

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDiffOfDefaults(t *testing.T) {
	l, _, err := loadFiles(t, map[string]string{"gantry.toml": "log_level = \"info\"\n"}, "--pids-limit=0")
	if err != nil {
		t.Fatal(err)
	}
	if have, want := l.Diff(), "# Nothing differs from the defaults.\n"; have != want {
		t.Errorf("have %q, want %q", have, want)
	}
}

// TestDiff: what differs is told with where it is said, and as a file of conf.d
// makes of the defaults the same configuration.
func TestDiff(t *testing.T) {
	l, dir, err := loadFiles(t, map[string]string{
		"gantry.toml":    "log_level = \"info\"\nroot = \"/a\"\ncni_bin_dir = [\"/x\"]\n[runtimes.runc]\n[runtimes.crun]\npath = \"/bin/crun\"\n",
		"conf.d/20.toml": "\nroot = \"/b\"\n[runtimes.\"kata.x\"]\nargs = [\"--debug\"]\nroot = \"\"\n",
	}, "--pids-limit", "7", "--log-format", "text")
	if err != nil {
		t.Fatal(err)
	}
	want := `root = "/b" # ` + dir + `/conf.d/20.toml:2
cni_bin_dir = ["/x"] # ` + dir + `/gantry.toml:3
pids_limit = 7 # flag --pids-limit

[runtimes."crun"] # ` + dir + `/gantry.toml:5
path = "/bin/crun" # ` + dir + `/gantry.toml:6

[runtimes."kata.x"] # ` + dir + `/conf.d/20.toml:3
args = ["--debug"] # ` + dir + `/conf.d/20.toml:4

[runtimes."runc"] # ` + dir + `/gantry.toml:4
`
	if diff := cmp.Diff(want, l.Diff()); diff != "" {
		t.Error(diff)
	}
	again, _, err := loadFiles(t, map[string]string{"gantry.toml": "", "conf.d/10.toml": l.Diff()})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(l.Config, again.Config); diff != "" {
		t.Errorf("a file of it reads back differently: %s", diff)
	}
}
