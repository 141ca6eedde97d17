package config

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/spf13/pflag"
)

var update = flag.Bool("update", false, "rewrite conf/gantry.toml from the table of keys")

// writeFiles writes files ("gantry.toml", "conf.d/x.toml") to a fresh directory.
func writeFiles(t *testing.T, files map[string]string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for name, body := range files {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(body), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func parseFlags(dir string, args ...string) (*Flags, error) {
	fs := pflag.NewFlagSet("gantryd", pflag.ContinueOnError)
	flags := BindFlags(fs)
	return flags, fs.Parse(append([]string{"--config", filepath.Join(dir, "gantry.toml")}, args...))
}

// loadFiles runs Load on files.
func loadFiles(t *testing.T, files map[string]string, args ...string) (*Loaded, string, error) {
	t.Helper()
	dir := writeFiles(t, files)
	flags, err := parseFlags(dir, args...)
	if err != nil {
		return nil, dir, err
	}
	l, err := Load(flags)
	return l, dir, err
}

func TestDefaultFileIsTheTable(t *testing.T) {
	const file = "../../conf/gantry.toml"
	want := DefaultTOML()
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(have)); diff != "" {
		t.Errorf("%s is not what the table says; run go test ./internal/config -update\n%s", file, diff)
	}
}

func TestDefaultFileUncommented(t *testing.T) {
	var lines []string
	for _, line := range strings.Split(DefaultTOML(), "\n") {
		if strings.HasPrefix(line, "# ") {
			continue
		}
		lines = append(lines, strings.TrimPrefix(line, "#"))
	}
	l, _, err := loadFiles(t, map[string]string{"gantry.toml": strings.Join(lines, "\n")})
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Runtimes = map[string]Runtime{"NAME": {}}
	if diff := cmp.Diff(want, l.Config, cmpopts.EquateEmpty()); diff != "" {
		t.Error(diff)
	}
}

func TestDefaultsAreValid(t *testing.T) {
	c := Default()
	for _, k := range keys() {
		if err := k.value.check(&c); err != nil {
			t.Errorf("%s: %v", k.name, err)
		}
		if !strings.HasSuffix(k.doc, ".") {
			t.Errorf("%s: the documentation is no sentence: %q", k.name, k.doc)
		}
	}
	if c.Listen != "/run/gantry/gantry.sock" || c.CNITimeout != 2*time.Minute || c.LogSizeMax != -1 {
		t.Errorf("unexpected defaults: %+v", c)
	}
}

func TestLaterSourcesWin(t *testing.T) {
	l, dir, err := loadFiles(t, map[string]string{
		"gantry.toml": "root = \"/a\"\nlisten='/l.sock'\ncni_bin_dir = [\"/x\", \"/y\"]\nlog_level = \"warn\"\n" +
			"[runtimes.crun]\npath = \"/bin/crun\"\nroot = \"/r\"\n",
		"conf.d/20.toml":     "root = \"/b\"\ncni_timeout = \"1m30s\"\n",
		"conf.d/10.toml":     "root = \"/c\"\nlog_level = \"error\"\n[runtimes]\ncrun.path = \"/opt/crun\"\nrunsc = { path = \"/opt/runsc\" }\n",
		"conf.d/ignored.txt": "nonsense",
	}, "--log-level=debug", "--cni-bin-dir", "/p,/q", "--cni-bin-dir", "/r", "--pids-limit", "7")
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Root, want.Listen, want.LogLevel, want.PidsLimit = "/b", "/l.sock", "debug", 7
	want.CNIBinDirs = []string{"/p", "/q", "/r"}
	want.CNITimeout = 90 * time.Second
	want.Runtimes = map[string]Runtime{"crun": {Path: "/opt/crun", Root: "/r"}, "runsc": {Path: "/opt/runsc"}}
	if diff := cmp.Diff(want, l.Config); diff != "" {
		t.Error(diff)
	}
	text := l.Effective()
	for _, line := range []string{
		`root = "/b" # ` + dir + `/conf.d/20.toml:1`,
		`listen = "/l.sock" # ` + dir + `/gantry.toml:2`,
		`cni_bin_dir = ["/p", "/q", "/r"] # flag --cni-bin-dir`,
		`run_root = "/run/gantry" # default`,
		`path = "/opt/crun" # ` + dir + `/conf.d/10.toml:4`,
		`root = "/r" # ` + dir + `/gantry.toml:7`,
		`path = "/opt/runsc" # ` + dir + `/conf.d/10.toml:5`,
	} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("missing line %q in\n%s", line, text)
		}
	}
	again := newLoaded()
	if err := again.apply("effective", text); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(l.Config, again.Config, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("the printed configuration reads back differently: %s", diff)
	}
}

func TestFaultsNameFileLineAndKey(t *testing.T) {
	for name, tc := range map[string]struct{ src, want string }{
		"unknown key":       {"root = '/a'\n\nlog_lvl = 'info'", "gantry.toml:3: log_lvl: unknown key; is log_level meant?"},
		"far off":           {"frobnicate = 1", "gantry.toml:1: frobnicate: unknown key"},
		"near the table":    {"[runtime.crun]\npath = '/c'", "runtime: unknown key; is runtimes meant?"},
		"wrong type":        {"# c\npids_limit = 'many'", `gantry.toml:2: pids_limit: want an integer, have the string "many"`},
		"list of numbers":   {"cni_bin_dir = [\n  '/a',\n  3,\n]", "gantry.toml:1: cni_bin_dir: want a list of strings, have a list"},
		"table for a value": {"[root]\na = 1", "gantry.toml:1: root: want a string, have a table"},
		"duration":          {"cni_timeout = 10", `gantry.toml:1: cni_timeout: want a duration such as "90s" or "2m", have 10`},
		"negative duration": {"cni_timeout = '-1s'", "gantry.toml:1: cni_timeout: want a duration above zero"},
		"relative path":     {"root = 'var/lib'", `gantry.toml:1: root: want an absolute path, have "var/lib"`},
		"dots":              {"root = '/var/../lib'", "gantry.toml:1: root: a path must not have .. in it"},
		"level":             {"log_level = 'loud'", `gantry.toml:1: log_level: want one of debug, info, warn, error, have "loud"`},
		"long socket":       {"listen = '/" + strings.Repeat("x", 107) + "'", "gantry.toml:1: listen: a socket's path can have 107 bytes, this has 108"},
		"metrics address":   {"metrics_listen = 'localhost'", `gantry.toml:1: metrics_listen: "localhost" is not host:port`},
		"metrics port":      {"metrics_listen = ':http'", `gantry.toml:1: metrics_listen: ":http": the port is not a number`},
		"no plugins":        {"cni_bin_dir = []", "gantry.toml:1: cni_bin_dir: want at least one"},
		"small log":         {"log_size_max = 1", "gantry.toml:1: log_size_max: want -1 or at least 8192, have 1"},
		"runtime key":       {"[runtimes.crun]\n\npth = '/c'", "gantry.toml:3: runtimes.crun.pth: unknown key; is runtimes.crun.path meant?"},
		"runtime value":     {"[runtimes]\n[runtimes.crun]\npath = 'crun'", "gantry.toml:3: runtimes.crun.path: want an absolute path"},
		"runtime name":      {"[runtimes.'a/b']\npath = '/c'", "gantry.toml:1: runtimes.a/b: a runtime's name has"},
		"runtime no table":  {"runtimes = 3", "gantry.toml:1: runtimes: want a table"},
		"array of tables":   {"[[runtimes]]\npath = '/c'", "gantry.toml:1: runtimes: want a table"},
		"syntax":            {"root = '/a'\nlisten = \n", "gantry.toml:2: at listen: "},
		"twice":             {"root = '/a'\nroot = '/b'\n", "gantry.toml:2: at root: "},
		"same directories":  {"root = '/a'\nrun_root = '/a/'", `gantry.toml:2: run_root: must not be root itself, "/a"`},
		"pause command":     {"pause_command = ['/pause']", "gantry.toml:1: pause_command: needs a pause_image"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := loadFiles(t, map[string]string{"gantry.toml": tc.src})
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("have error %v, want one with %q", err, tc.want)
			}
		})
	}
}

func TestEveryFaultIsReported(t *testing.T) {
	_, _, err := loadFiles(t, map[string]string{
		"gantry.toml": "root = 1\nlisten = 2\n", "conf.d/a.toml": "x = 1\n"})
	if err == nil || !strings.Contains(err.Error(), "root:") || !strings.Contains(err.Error(), "listen:") {
		t.Errorf("have error %v, want both faults of gantry.toml", err)
	}
	_, _, err = loadFiles(t, map[string]string{
		"gantry.toml": "", "conf.d/a.toml": "x = 1\n", "conf.d/b.toml": "y = 1\n"})
	if err == nil || !strings.Contains(err.Error(), "a.toml:1: x:") || !strings.Contains(err.Error(), "b.toml:1: y:") {
		t.Errorf("have error %v, want the faults of both files", err)
	}
}

func TestFlagFaults(t *testing.T) {
	for _, tc := range []struct{ arg, want string }{
		{"--log-level=loud", "--log-level"},
		{"--pids-limit=x", `want an integer, have "x"`},
		{"--cni-timeout=10", `have "10"`},
		{"--root=rel", "want an absolute path"},
		{"--no-such-flag", "no-such-flag"},
	} {
		_, _, err := loadFiles(t, map[string]string{"gantry.toml": ""}, tc.arg)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: have error %v, want one with %q", tc.arg, err, tc.want)
		}
	}
	_, _, err := loadFiles(t, map[string]string{"gantry.toml": ""}, "--run-root=/x", "--root=/x")
	if err == nil || !strings.Contains(err.Error(), "flag --run-root: run_root: must not be root") {
		t.Errorf("have error %v, want one that names the flag", err)
	}
}

func TestAFlagMendsNothingInAFile(t *testing.T) {
	_, _, err := loadFiles(t, map[string]string{"gantry.toml": "root = 1"}, "--root=/x")
	if err == nil {
		t.Error("a fault in the file went unnoticed")
	}
}

func TestMissingFile(t *testing.T) {
	if _, _, err := loadFiles(t, nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file named by --config that does not exist: have error %v", err)
	}
	f := &Flags{file: &configFile{path: filepath.Join(t.TempDir(), "gantry.toml")}}
	l, err := Load(f)
	if err != nil {
		t.Fatalf("a default file that does not exist: %v", err)
	}
	if diff := cmp.Diff(Default(), l.Config); diff != "" {
		t.Error(diff)
	}
}

func TestEveryKeyHasAFlag(t *testing.T) {
	fs := pflag.NewFlagSet("gantryd", pflag.ContinueOnError)
	BindFlags(fs)
	for _, name := range []string{"config", "root", "run-root", "listen", "cni-conf-dir", "cni-bin-dir",
		"registries-conf", "policy", "default-runtime", "log-level"} {
		if fs.Lookup(name) == nil {
			t.Errorf("no flag --%s", name)
		}
	}
	usage := fs.FlagUsages()
	for _, want := range []string{"--cni-bin-dir list", "[\"/opt/cni/bin\", \"/usr/lib/cni\"]", "--pids-limit int", "--log-level string"} {
		if !strings.Contains(usage, want) {
			t.Errorf("missing %q in\n%s", want, usage)
		}
	}
}

func TestResolveRuntimes(t *testing.T) {
	path := func(names ...string) func(string) (string, error) {
		return func(name string) (string, error) {
			for _, n := range names {
				if n == name {
					return "/bin/" + n, nil
				}
			}
			return "", errors.New("not there")
		}
	}
	for name, tc := range map[string]struct {
		in      Config
		path    []string
		want    map[string]Runtime
		def     string
		failure string
	}{
		"both found":         {Config{}, []string{"crun", "runc"}, map[string]Runtime{"crun": {Path: "/bin/crun", Root: "/run/crun"}, "runc": {Path: "/bin/runc", Root: "/run/runc"}}, "crun", ""},
		"only runc":          {Config{}, []string{"runc"}, map[string]Runtime{"runc": {Path: "/bin/runc", Root: "/run/runc"}}, "runc", ""},
		"none yet":           {Config{}, nil, map[string]Runtime{"crun": {Root: "/run/crun"}, "runc": {Root: "/run/runc"}}, "crun", ""},
		"default from PATH":  {Config{DefaultRuntime: "youki"}, []string{"crun", "youki"}, map[string]Runtime{"crun": {Path: "/bin/crun", Root: "/run/crun"}, "youki": {Path: "/bin/youki", Root: "/run/youki"}}, "youki", ""},
		"default missing":    {Config{DefaultRuntime: "youki"}, []string{"crun"}, map[string]Runtime{"crun": {Path: "/bin/crun", Root: "/run/crun"}, "youki": {Root: "/run/youki"}}, "youki", ""},
		"configured":         {Config{Runtimes: map[string]Runtime{"x": {Path: "/opt/x", Root: "/state"}}}, []string{"crun"}, map[string]Runtime{"x": {Path: "/opt/x", Root: "/state"}}, "x", ""},
		"configured, looked": {Config{Runtimes: map[string]Runtime{"runc": {}}}, []string{"runc"}, map[string]Runtime{"runc": {Path: "/bin/runc", Root: "/run/runc"}}, "runc", ""},
		"configured missing": {Config{Runtimes: map[string]Runtime{"runc": {}}}, nil, map[string]Runtime{"runc": {Root: "/run/runc"}}, "runc", ""},
		"no default":         {Config{Runtimes: map[string]Runtime{"a": {Path: "/a"}, "b": {Path: "/b"}}}, nil, nil, "", "default_runtime"},
	} {
		t.Run(name, func(t *testing.T) {
			tc.in.RunRoot = "/run"
			have, err := tc.in.ResolveRuntimes(path(tc.path...))
			if tc.failure != "" {
				if err == nil || !strings.Contains(err.Error(), tc.failure) {
					t.Errorf("have error %v, want one with %q", err, tc.failure)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, have.Runtimes); diff != "" || have.DefaultRuntime != tc.def {
				t.Errorf("default %q, want %q; %s", have.DefaultRuntime, tc.def, diff)
			}
		})
	}
}

// FuzzApply: no text makes the parser panic, and what it accepts is printed,
// in whole and as what differs from the defaults, and read back unchanged.
func FuzzApply(f *testing.F) {
	f.Add(DefaultTOML())
	f.Add(strings.ReplaceAll(DefaultTOML(), "\n#", "\n"))
	f.Add("[runtimes.crun]\npath = '/c'\n[runtimes]\nrunc = {}")
	f.Add("cni_bin_dir = [\n'/a\\u0001', # x\n]\npause_image = \"\"\"\\\n x\"\"\"")
	f.Add("runtimes.a.path = '/a'\nruntimes.b = {path='/b', root='/\"'}")
	f.Fuzz(func(t *testing.T, src string) {
		l := newLoaded()
		if l.apply("fuzz", src) != nil {
			return
		}
		for _, text := range []string{l.Effective(), l.Diff()} {
			again := newLoaded()
			if err := again.apply("printed", text); err != nil {
				t.Fatalf("%v in\n%s", err, text)
			}
			if diff := cmp.Diff(l.Config, again.Config, cmpopts.EquateEmpty()); diff != "" {
				t.Fatal(diff)
			}
		}
	})
}
