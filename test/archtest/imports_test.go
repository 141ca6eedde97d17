// Package archtest keeps the import table: which package of Gantry may know
// of which, and why. A package that is not in the table fails the test, so
// that a new one gets its place on purpose.
package archtest

import (
	"encoding/json"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/gantry-cri/gantry/"

// rule says what a package may import of Gantry, and the reason.
type rule struct {
	may []string
	why string
}

var foundations = []string{"internal/id", "internal/errkind"}

var table = map[string]rule{
	"cmd/daemon": {[]string{"*"}, "it wires everything and holds no logic of its own"},

	"internal/server": {[]string{"internal/sandbox", "internal/container", "internal/image", "internal/storage", "internal/oci", "internal/streaming", "internal/events", "internal/stats"},
		"it translates between gRPC and the packages that do the work; of storage, oci and events it uses the types of results only"},
	"internal/control": {[]string{"internal/image", "internal/storage"},
		"it answers an operator as internal/server answers the kubelet; of storage it uses the type of an image only"},
	"internal/sandbox": {[]string{"internal/container", "internal/network", "internal/monitor", "internal/oci", "internal/storage", "internal/programs",
		"internal/cgroup", "internal/systemd", "internal/selinux", "internal/node", "internal/events", "internal/statefile", "internal/rollback", "internal/index", "internal/flight"},
		"a pod is made of containers and a network; nothing below knows of pods"},
	"internal/container": {[]string{"internal/monitor", "internal/oci", "internal/storage", "internal/cgroup", "internal/selinux", "internal/node", "internal/events",
		"internal/statefile", "internal/rollback", "internal/index", "internal/flight"},
		"never sandbox: what a container needs of its pod is handed to it"},
	"internal/monitor":   {[]string{"internal/statefile"}, "it speaks a protocol; it holds no policy"},
	"internal/streaming": {nil, "it serves HTTP; what it serves is handed to it"},
	"internal/events":    {nil, "it hands events on; what an event is, is its publisher's business"},
	"internal/programs":  {nil, "embedded files"},
	"internal/oci":       {[]string{"internal/node", "internal/selinux"}, "a spec is a pure function of request, image and node facts"},
	"internal/image":     {[]string{"internal/storage", "internal/flight"}, "it fills the store; it knows of no container"},
	"internal/storage":   {[]string{"internal/statefile"}, "the bottom: it knows of nothing that uses it"},
	"internal/network":   {[]string{"internal/statefile"}, "an attachment is named by its pod's id and needs nothing else of it"},
	"internal/cgroup":    {[]string{"internal/node"}, "paths depend on what the node mounts where"},
	"internal/metrics":   {nil, "it counts; what is counted is handed to it"},
	"internal/apparmor":  {nil, "it asks the kernel; for whom is not its business"},
	"internal/cdi":       {nil, "it changes a spec; whose is not its business"},
	"internal/hooks":     {nil, "it changes a spec; whose is not its business"},
	"internal/selinux":   {nil, "it makes labels of labels; whose is not its business"},
	"internal/systemd":   {nil, "it asks for units by their names; what they are for is its caller's"},
	"internal/config":    {nil, "parsing has no side effects and no dependencies"},
	"internal/stats":     {[]string{"internal/node"}, "it reads counters; whose they are is handed to it"},
	"internal/check": {[]string{"internal/config", "internal/cgroup", "internal/network", "internal/node", "internal/oci", "internal/programs", "internal/selinux", "internal/storage", "internal/systemd"},
		"it looks at the node as those would that use it, without them"},
	"internal/wipe": {nil, "it removes files; that their pods have ended is seen to by its caller"},
	"internal/node": {nil, "facts are probed once and passed as a value"},

	"internal/flight":    {nil, "foundation"},
	"internal/index":     {nil, "foundation"},
	"internal/rollback":  {nil, "foundation"},
	"internal/statefile": {nil, "foundation"},
	"internal/id":        {nil, "foundation"},
	"internal/errkind":   {nil, "foundation"},
}

type pkg struct {
	ImportPath string
	Imports    []string
}

func TestImportsFollowTheTable(t *testing.T) {
	seen := make(map[string]bool)
	for _, p := range list(t) {
		name := strings.TrimPrefix(p.ImportPath, module)
		if strings.HasPrefix(name, "test/") || p.ImportPath+"/" == module {
			continue // tests may use everything; nothing may use them (below)
		}
		seen[name] = true
		r, ok := table[name]
		if !ok {
			t.Errorf("%s is not in the import table: give it a place and a reason", name)
			continue
		}
		for _, imp := range p.Imports {
			dep, ours := strings.CutPrefix(imp, module)
			if ours && !allowed(r, dep) {
				t.Errorf("%s must not import %s: %s", name, dep, r.why)
			}
		}
	}
	for name := range table {
		if !seen[name] {
			t.Errorf("the import table has %s, which does not exist", name)
		}
	}
}

func allowed(r rule, dep string) bool {
	if strings.HasPrefix(dep, "test/") {
		return false
	}
	return slices.Contains(foundations, dep) || slices.Contains(r.may, dep) || slices.Contains(r.may, "*")
}

func list(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Imports", "./...")
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var pkgs []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); dec.More(); {
		var p pkg
		if err := dec.Decode(&p); err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
	if len(pkgs) < 10 {
		t.Fatalf("go list found only %d packages", len(pkgs))
	}
	return pkgs
}
