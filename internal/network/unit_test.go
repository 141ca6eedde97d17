package network

import (
	"context"
	"encoding/json"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	types100 "github.com/containernetworking/cni/pkg/types/100"
)

func TestParseRate(t *testing.T) {
	for text, want := range map[string]uint64{
		"1k": 1000, "10M": 10_000_000, "1.5G": 1_500_000_000, "1Mi": 1 << 20, "1P": 1e15,
		"2000": 2000, "1e6": 1_000_000, "1E6": 1_000_000, "1000.1": 1001, "0.5Ki": 0,
		"": 0, "M": 0, "10X": 0, "-5M": 0, "999": 0, "2P": 0, "1e99": 0, "10MM": 0, "1_000": 0, "0x10k": 0, "1/2M": 0,
	} {
		have, err := parseRate(text)
		if have != want || (err == nil) != (want != 0) {
			t.Errorf("%q: have %d, error %v; want %d", text, have, err, want)
		}
	}
}

func FuzzParseRate(f *testing.F) {
	for _, s := range []string{"10M", "1.5Gi", "1e6", "999999999999999999999e-9k"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		rate, err := parseRate(s)
		if err == nil && (rate < minRate || rate > maxRate) {
			t.Errorf("%q: %d is out of range", s, rate)
		}
		if n, ok := parseDecimal(s); ok && n.Cmp(new(big.Rat)) < 0 {
			t.Errorf("%q: negative", s)
		}
	})
}

func TestPodIPs(t *testing.T) {
	for name, tc := range map[string]struct{ result, want string }{
		"of the interface": {`{"interfaces":[{"name":"br"},{"name":"eth0","sandbox":"/x"}],
			"ips":[{"interface":0,"address":"10.0.0.1/24"},{"interface":1,"address":"10.0.0.2/24"},{"interface":1,"address":"fd00::2/64"}]}`, "[10.0.0.2 fd00::2]"},
		"no interface named":  {`{"ips":[{"address":"10.0.0.2/24"}]}`, "[10.0.0.2]"},
		"the node's eth0":     {`{"interfaces":[{"name":"eth0"}],"ips":[{"interface":0,"address":"10.0.0.2/24"}]}`, "[]"},
		"another interface":   {`{"interfaces":[{"name":"net1","sandbox":"/x"}],"ips":[{"interface":0,"address":"10.0.0.2/24"}]}`, "[]"},
		"no such interface":   {`{"ips":[{"interface":3,"address":"10.0.0.2/24"},{"interface":-1,"address":"10.0.0.3/24"}]}`, "[]"},
		"nulls":               {`{"interfaces":[null],"ips":[null,{"interface":0,"address":"10.0.0.2/24"}]}`, "[]"},
		"nothing":             {`{}`, "[]"},
		"v6 primary":          {`{"ips":[{"address":"fd00::2/64"},{"address":"10.0.0.2/24"}]}`, "[fd00::2 10.0.0.2]"},
		"v4 in v6's clothing": {`{"ips":[{"address":"::ffff:10.0.0.2/120"}]}`, "[10.0.0.2]"},
	} {
		var result types100.Result
		if err := json.Unmarshal([]byte(tc.result), &result); err != nil {
			t.Fatal(name, err)
		}
		if have := fmt.Sprint(podIPs(&result, IfName)); have != tc.want {
			t.Errorf("%s: have %s, want %s", name, have, tc.want)
		}
	}
}

func TestScanDir(t *testing.T) {
	bin := t.TempDir()
	for _, plugin := range []string{"p", "ipam"} {
		if err := os.WriteFile(filepath.Join(bin, plugin), []byte("#!/bin/sh\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(bin, "notexec"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	const list = `{"cniVersion":%q,"name":%q,"plugins":[{"type":%q,"ipam":{"type":%q}}]}`
	for name, tc := range map[string]struct {
		files   map[string]string
		network string
		words   string // of unusable
		problem string // words of the first
	}{
		"list":            {map[string]string{"a.conflist": fmt.Sprintf(list, "1.0.0", "n", "p", "ipam")}, "n", "", ""},
		"old plugin file": {map[string]string{"a.conf": `{"name":"n","type":"p"}`}, "n", "", ""},
		"list in .json":   {map[string]string{"a.json": fmt.Sprintf(list, "0.4.0", "n", "p", "")}, "n", "", ""},
		"no plugin":       {map[string]string{"a.conflist": fmt.Sprintf(list, "1.0.0", "n", "q", "")}, "n", `CNI plugin "q" is not in ` + bin, ""},
		"no IPAM plugin":  {map[string]string{"a.conflist": fmt.Sprintf(list, "1.0.0", "n", "p", "q")}, "n", `network "n" (a.conflist): CNI plugin "q"`, ""},
		"not executable":  {map[string]string{"a.conflist": fmt.Sprintf(list, "1.0.0", "n", "notexec", "")}, "n", `"notexec" is not in`, ""},
		"path as plugin":  {map[string]string{"a.conflist": fmt.Sprintf(list, "1.0.0", "n", "../p", "")}, "n", `can't have the name "../p"`, ""},
		"future version":  {map[string]string{"a.conflist": fmt.Sprintf(list, "9.0.0", "n", "p", "")}, "", "a.conflist: cniVersion", "9.0.0"},
		"no name":         {map[string]string{"a.conflist": `{"plugins":[{"type":"p"}]}`}, "", "no name", "a.conflist"},
		"bad name":        {map[string]string{"a.conflist": fmt.Sprintf(list, "1.0.0", "a/b", "p", "")}, "", "invalid characters", ""},
		"no type":         {map[string]string{"a.conf": `{"name":"n"}`}, "", "a.conf: ", ""},
		"not an object":   {map[string]string{"a.conflist": `[]`}, "", "a.conflist: ", ""},
		"null":            {map[string]string{"a.conflist": `null`}, "", "a.conflist: ", ""},
		"null plugin":     {map[string]string{"a.conflist": `{"name":"n","plugins":[null]}`}, "", "a.conflist: ", ""},
		"empty file":      {map[string]string{"a.conflist": ``, "b.conflist": fmt.Sprintf(list, "1.0.0", "n", "p", "")}, "n", "", "a.conflist: "},
		"other files":     {map[string]string{"a.bak": `{}`, "README": ``}, "", "it has no *.conflist", ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for file, body := range tc.files {
				if err := os.WriteFile(filepath.Join(dir, file), []byte(body), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			s := scanDir(dir, []string{bin})
			network := ""
			if s.network != nil {
				network = s.network.list.Name
			}
			if network != tc.network || (s.unusable != nil) != (tc.words != "") ||
				s.unusable != nil && !strings.Contains(s.unusable.Error(), tc.words) ||
				!strings.Contains(strings.Join(s.problems, " "), tc.problem) {
				t.Errorf("have network %q, unusable %v, problems %v", network, s.unusable, s.problems)
			}
		})
	}
}

// FuzzParseFile: no configuration makes the parser panic, and what it accepts
// is read back as the same list of plugins.
func FuzzParseFile(f *testing.F) {
	f.Add([]byte(`{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"p","ipam":{"type":"i"}}]}`))
	f.Add([]byte(`{"name":"n","type":"p","capabilities":{"portMappings":true}}`))
	f.Add([]byte(`{"cniVersions":["0.4.0","1.1.0"],"name":"n","plugins":[null]}`))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, body []byte) {
		path := filepath.Join(dir, "fuzz.conflist")
		if err := os.WriteFile(path, body, 0o600); err != nil {
			t.Fatal(err)
		}
		n, err := readNetwork(path)
		if err != nil {
			return
		}
		if err := os.WriteFile(path, []byte(n.conf), 0o600); err != nil {
			t.Fatal(err)
		}
		again, err := readNetwork(path)
		if err != nil {
			t.Fatalf("%s: %v", n.conf, err)
		}
		if again.list.Name != n.list.Name || len(again.list.Plugins) != len(n.list.Plugins) || again.list.CNIVersion != n.list.CNIVersion {
			t.Errorf("%s is read back as %s", n.conf, again.conf)
		}
		_ = missingPlugins(n, []string{dir})
	})
}

func TestRetryDelay(t *testing.T) {
	for failed, want := range map[int]time.Duration{1: time.Second, 2: 2 * time.Second, 6: 32 * time.Second, 7: time.Minute, 1000: time.Minute} {
		if have := retryDelay(failed); have != want {
			t.Errorf("after %d failures: have %v, want %v", failed, have, want)
		}
	}
}

func TestPluginOutput(t *testing.T) {
	dir := t.TempDir()
	run := func(script string) ([]byte, error) {
		path := filepath.Join(dir, "plugin")
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script), 0o755); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		return (&runner{}).ExecPlugin(ctx, path, []byte("input"), nil)
	}
	if out, err := run("cat; echo noise >&2"); string(out) != "input" || err != nil {
		t.Errorf("have %q, error %v", out, err)
	}
	if _, err := run("yes"); err == nil || !strings.Contains(err.Error(), "wrote more than") {
		t.Errorf("endless output: have error %v", err)
	}
	if _, err := run("yes | head -c 100000 >&2; exit 3"); err == nil || len(err.Error()) > 3*stderrMax {
		t.Errorf("much on stderr: have an error of %d bytes", len(fmt.Sprint(err)))
	}
	start := time.Now()
	if out, err := run("echo done; sleep 30 & exit 0"); string(out) != "done\n" || err != nil {
		t.Errorf("a child that holds the pipes: have %q, error %v", out, err)
	}
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("a child that holds the pipes held us for %v", took)
	}
}
