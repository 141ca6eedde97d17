// Package check looks at whether a node has what Gantry needs, and says what to
// do where it has not. It changes nothing, works with and without a running
// daemon, and ends soon whatever hangs.
package check

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/gantry-cri/gantry/internal/config"
	"github.com/gantry-cri/gantry/internal/network"
	"github.com/gantry-cri/gantry/internal/node"
)

// Level says how good or bad a finding is.
type Level string

// The levels. What is only worth knowing is OK.
const (
	OK      Level = "ok"
	Warning Level = "warning" // something will not work, or not well
	Error   Level = "error"   // pods can't be run
)

// Result is what was found of one item. Its JSON form is stable: fields and
// names stay, further ones may come.
type Result struct {
	Name    string `json:"name"`
	Level   Level  `json:"level"`
	Message string `json:"message"`
	Fix     string `json:"fix,omitempty"` // what to do; "" where there is nothing to do
}

// Patience is how long one item may take.
const Patience = 2 * time.Second

// Node is what is looked at. The functions are those of the real node, or a
// test's.
type Node struct {
	Root      string        // of the file system: "/"
	Config    config.Config // with its runtimes resolved; the defaults where it is not valid
	ConfigErr error         // why it is not valid
	Facts     node.Facts
	FactsErr  error // why there are none
	UID       int
	Now       time.Time

	// Run returns the output of a command that it kills when ctx ends.
	Run func(ctx context.Context, argv ...string) (string, error)
	// Overlay tries out an overlay mount in a new directory in dir.
	Overlay func(dir string) error
	// Space tells of the file system that a file is on.
	Space func(file string) (Space, error)
	// Systemd asks systemd for a sign of life.
	Systemd func(context.Context) error
	// Network reads CNI configurations.
	Network func(confDir string, binDirs []string) network.Found
	// Programs says what is wrong with the programs installed in a directory.
	Programs func(dir string) error
	// Confinement is why containers are not confined though SELinux is enabled.
	Confinement func() error
	// Synchronized says whether the clock is kept by a time server, as far as the kernel knows.
	Synchronized func() bool
}

// Space is how much room a file system has.
type Space struct {
	Size, Free            uint64 // bytes; Free is what root can use
	Inodes, FreeInodes    uint64 // zero where there is no limit
	ReadOnly, NotExecutes bool
}

// item is one thing to look at. It may yield several results.
type item struct {
	name string
	look func(context.Context, *Node) []Result
}

// Check looks at everything, side by side, and returns what it found in a fixed
// order.
func (n *Node) Check(ctx context.Context) []Result {
	items := n.items()
	found := make([]chan []Result, len(items))
	for i, it := range items {
		found[i] = make(chan []Result, 1) // so that one that hangs ends when it does
		go func() {
			ctx, cancel := context.WithTimeout(ctx, Patience)
			defer cancel()
			found[i] <- it.look(ctx, n)
		}()
	}
	late := time.After(Patience + Patience/4)
	var all []Result
	over := false
	for i, it := range items {
		if over {
			select {
			case results := <-found[i]:
				all = append(all, results...)
			default:
				all = append(all, hangs(it.name))
			}
			continue
		}
		select {
		case results := <-found[i]:
			all = append(all, results...)
		case <-late:
			over = true
			all = append(all, hangs(it.name))
		}
	}
	return all
}

func hangs(name string) Result {
	return Result{name, Error, fmt.Sprintf("no answer within %s", Patience), "find out what hangs: ps axf, dmesg"}
}

// one makes an item of what yields a single result, which gets the item's name.
func one(name string, look func(context.Context, *Node) Result) item {
	return item{name, func(ctx context.Context, n *Node) []Result {
		r := look(ctx, n)
		r.Name = name
		return []Result{r}
	}}
}

func (n *Node) items() []item {
	return []item{
		one("configuration", configuration),
		one("root", root),
		one("kernel", kernel),
		one("cgroup-version", cgroupVersion),
		one("cgroup-controllers", cgroupControllers),
		one("cgroup-manager", cgroupManager),
		{"runtime", runtimes},
		one("programs", programs),
		one("overlay", overlay),
		one("user-namespaces", userNamespaces),
		one("seccomp", seccomp),
		one("confinement", confinement),
		one("cni", cni),
		one("ip-forward", ipForward),
		one("br-netfilter", brNetfilter),
		one("ca-certificates", certificates),
		one("disk-root", func(_ context.Context, n *Node) Result { return disk(n, n.Config.Root, rootNeeds) }),
		one("disk-run-root", func(_ context.Context, n *Node) Result { return disk(n, n.Config.RunRoot, runNeeds) }),
		one("permissions", permissions),
		one("kubelet", kubelet),
		one("other-runtimes", otherRuntimes),
		one("swap", swap),
		one("clock", clock),
	}
}

func ok(format string, args ...any) Result {
	return Result{Level: OK, Message: fmt.Sprintf(format, args...)}
}

func warning(fix, format string, args ...any) Result {
	return Result{Level: Warning, Message: fmt.Sprintf(format, args...), Fix: fix}
}

func bad(fix, format string, args ...any) Result {
	return Result{Level: Error, Message: fmt.Sprintf(format, args...), Fix: fix}
}

// at is where a path of the node is.
func (n *Node) at(path string) string { return filepath.Join(n.Root, path) }

// read returns the text of a file; "" where there is none.
func (n *Node) read(path string) string {
	text, err := os.ReadFile(n.at(path))
	if err != nil {
		return ""
	}
	return string(text)
}

func (n *Node) exists(path string) bool {
	_, err := os.Stat(n.at(path))
	return err == nil
}

// nearest is path, or the nearest directory above it that exists.
func (n *Node) nearest(path string) string {
	for {
		_, err := os.Stat(n.at(path))
		if !errors.Is(err, fs.ErrNotExist) || path == "/" || path == "." {
			return path
		}
		path = filepath.Dir(path)
	}
}
