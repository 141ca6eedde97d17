package check

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/gantry-cri/gantry/internal/config"
	"github.com/gantry-cri/gantry/internal/oci"
)

// oldest are the versions of runtimes before which something does not work.
var oldest = map[string][2]int{"crun": {1, 8}, "runc": {1, 1}}

// runtimes looks at every handler, at the same time.
func runtimes(ctx context.Context, n *Node) []Result {
	names := slices.Sorted(maps.Keys(n.Config.Runtimes))
	results := make([]Result, len(names))
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() {
			results[i] = oneRuntime(ctx, n, n.Config.Runtimes[name])
			results[i].Name = "runtime-" + name
			if name == n.Config.DefaultRuntime && results[i].Level == OK {
				results[i].Message += ", the default"
			}
		})
	}
	wg.Wait()
	return results
}

func oneRuntime(ctx context.Context, n *Node, r config.Runtime) Result {
	const fix = "install it (apt install crun), or set its path in [runtimes.NAME], or remove that table"
	if r.Path == "" {
		return bad(fix, "its program is not in PATH")
	}
	out, err := n.Run(ctx, append(append([]string{n.at(r.Path)}, r.Args...), "--version")...)
	if err != nil {
		return bad(fix, "%s --version: %v", r.Path, err)
	}
	name, version := oci.ParseVersion(out)
	if name == "" {
		return warning("", "%s --version does not say what it is: %q", r.Path, firstLine(out))
	}
	program := filepath.Base(name)
	if least, known := oldest[program]; known {
		var major, minor int
		if _, err := fmt.Sscanf(version, "%d.%d", &major, &minor); err == nil && (major < least[0] || major == least[0] && minor < least[1]) {
			return bad("install a newer one", "%s is %s %s; at least %d.%d is needed", r.Path, program, version, least[0], least[1])
		}
	}
	return ok("%s is %s %s", r.Path, program, version)
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return line
}

// programs looks at the monitor and its like, which gantryd carries with it.
func programs(_ context.Context, n *Node) Result {
	dir := filepath.Join(n.Config.Root, "bin")
	if space, err := n.Space(n.at(n.nearest(dir))); err == nil && space.NotExecutes {
		return bad("mount it without noexec, or set another root", "%s, where the monitor runs from, is mounted noexec", n.nearest(dir))
	}
	if !n.exists(dir) {
		return ok("gantryd writes the monitor and pause to %s when it starts", dir)
	}
	if err := n.Programs(n.at(dir)); err != nil {
		return warning("systemctl restart gantry: it writes them anew", "%v", err)
	}
	return ok("the monitor and pause are in %s", dir)
}
