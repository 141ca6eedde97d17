package images

import (
	"context"
	"crypto/sha256"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// own is this package's code: a change of it makes other images.
//
//go:embed *.go
var own embed.FS

// Build returns the directory of an OCI image layout that holds the set,
// building it below cache unless it is there already. Several processes may
// call it at once. A set that was built from the package lists that APT has now
// is found in a few milliseconds, without asking APT.
func Build(ctx context.Context, cache string, set Set) (string, error) {
	cache, err := filepath.Abs(cache)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	unlock, err := lock(filepath.Join(cache, "lock"))
	if err != nil {
		return "", err
	}
	defer unlock()

	if os.Getenv(builtVariable) != "" {
		return newest(cache, set)
	}
	stamp, err := digestState(cache, set)
	if err != nil {
		return "", err
	}
	link := filepath.Join(cache, string(set)+"-for-"+stamp)
	if dir, err := filepath.EvalSymlinks(link); err == nil {
		return dir, nil
	}
	dir, err := buildOnce(ctx, cache, set)
	if err != nil && refreshLists(ctx) == nil {
		// The lists were missing, or older than what the mirrors still hold.
		dir, err = buildOnce(ctx, cache, set)
	}
	if err != nil {
		return "", fmt.Errorf("build image set %s: %w", set, err)
	}
	if err := removeOthers(cache, set, dir); err != nil {
		return "", err
	}
	if stamp, err = digestState(cache, set); err != nil {
		return "", err
	}
	link = filepath.Join(cache, string(set)+"-for-"+stamp)
	return dir, os.Symlink(filepath.Base(dir), link)
}

// builtVariable says that APT is not to be asked: the sets in the cache are used
// as they are, on a machine that can build none.
const builtVariable = "GANTRY_TEST_IMAGES_BUILT"

// newest returns the set that was built last.
func newest(cache string, set Set) (string, error) {
	built, err := filepath.Glob(filepath.Join(cache, string(set)+"-*", "index.json"))
	if err != nil || len(built) == 0 {
		return "", fmt.Errorf("%s holds no image set %q, and %s forbids to build one", cache, set, builtVariable)
	}
	return filepath.Dir(slices.MaxFunc(built, func(a, b string) int { return modified(a).Compare(modified(b)) })), nil
}

func modified(file string) time.Time {
	info, err := os.Stat(file)
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}

func refreshLists(ctx context.Context) error {
	_, err := output(ctx, "", "apt-get", "update", "-q")
	return err
}

// buildOnce builds the set unless the packages are those of an earlier build.
func buildOnce(ctx context.Context, cache string, set Set) (string, error) {
	in, err := findInputs(ctx)
	if err != nil {
		return "", err
	}
	if set == Conformance {
		in.agnhost = agnhost(cache)
		if in.tools, err = debs(ctx, "curl", "bash", "libtinfo6"); err != nil {
			return "", err
		}
	}
	key, err := in.key(set)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, string(set)+"-"+key)
	if _, err := os.Stat(filepath.Join(dir, "index.json")); err == nil {
		return dir, nil
	}
	return dir, build(ctx, cache, dir, set, in)
}

func build(ctx context.Context, cache, dir string, set Set, in inputs) error {
	list, err := imagesOf(ctx, cache, set, in)
	if err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(cache, "building-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	w, err := newLayoutWriter(tmp)
	if err != nil {
		return err
	}
	for _, im := range list {
		if err := w.add(im); err != nil {
			return fmt.Errorf("write %s: %w", im.names[0], err)
		}
	}
	if err := w.close(); err != nil {
		return err
	}
	if err := os.Chmod(tmp, 0o755); err != nil {
		return err
	}
	return os.Rename(tmp, dir)
}

func imagesOf(ctx context.Context, cache string, set Set, in inputs) ([]image, error) {
	switch set {
	case Demo:
		return demoImages(ctx, in)
	case Critest:
		program, err := fullBusybox(ctx, cache)
		if err != nil {
			return nil, err
		}
		return critestImages(ctx, in, program)
	case Conformance:
		program, err := fullBusybox(ctx, cache)
		if err != nil {
			return nil, err
		}
		return conformanceImages(ctx, in, program)
	}
	return nil, fmt.Errorf("there is no image set %q", set)
}

// fullBusybox returns the busybox of the source package, compiled once.
func fullBusybox(ctx context.Context, cache string) ([]byte, error) {
	file := filepath.Join(cache, "busybox-"+runtime.GOARCH)
	program, err := os.ReadFile(file)
	if !errors.Is(err, fs.ErrNotExist) {
		return program, err
	}
	src, err := openSources(ctx, filepath.Join(cache, "apt"))
	if err != nil {
		return nil, err
	}
	if program, err = src.busybox(ctx); err != nil {
		return nil, err
	}
	if err := os.WriteFile(file+".new", program, 0o755); err != nil {
		return nil, err
	}
	return program, os.Rename(file+".new", file)
}

// key digests what the set is made from.
func (in inputs) key(set Set) (string, error) {
	sum := sha256.New()
	fmt.Fprintln(sum, set, in.busybox, in.nginx, in.tools)
	if in.agnhost != "" {
		if err := digestFile(sum, in.agnhost); err != nil {
			return "", err
		}
	}
	if err := digestOwn(sum); err != nil {
		return "", err
	}
	return fmt.Sprintf("%x", sum.Sum(nil))[:16], nil
}

// digestState digests this package's sources and the names, sizes and times of APT's
// package lists and of the program that Make has built: while it stays the same, so do the inputs of every set.
func digestState(cache string, set Set) (string, error) {
	sum := sha256.New()
	if err := digestOwn(sum); err != nil {
		return "", err
	}
	if set == Conformance {
		info, err := os.Stat(agnhost(cache))
		if err != nil {
			return "", err
		}
		fmt.Fprintln(sum, info.Size(), info.ModTime().UnixNano())
	}
	lists, err := os.ReadDir("/var/lib/apt/lists")
	if err != nil {
		return "", err
	}
	for _, entry := range lists {
		if info, err := entry.Info(); err == nil && info.Mode().IsRegular() {
			fmt.Fprintln(sum, entry.Name(), info.Size(), info.ModTime().UnixNano())
		}
	}
	return fmt.Sprintf("%x", sum.Sum(nil))[:16], nil
}

func digestFile(sum io.Writer, name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(sum, f)
	return err
}

func digestOwn(sum io.Writer) error {
	files, err := fs.Glob(own, "*.go")
	if err != nil {
		return err
	}
	slices.Sort(files)
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		data, err := own.ReadFile(name)
		if err != nil {
			return err
		}
		fmt.Fprintf(sum, "%s %x\n", name, sha256.Sum256(data))
	}
	return nil
}

// removeOthers removes earlier builds of the set.
func removeOthers(cache string, set Set, keep string) error {
	dirs, err := filepath.Glob(filepath.Join(cache, string(set)+"-*"))
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		if dir != keep {
			if err := os.RemoveAll(dir); err != nil {
				return err
			}
		}
	}
	return nil
}

// lock holds an exclusive lock on file until the returned function is called.
func lock(file string) (unlock func(), err error) {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", file, err)
	}
	return func() { f.Close() }, nil
}
