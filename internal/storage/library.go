package storage

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	cstorage "go.podman.io/storage"
	cstypes "go.podman.io/storage/types"
	"golang.org/x/sys/unix"
)

const (
	// confEnv names the file that containers/storage reads its defaults from.
	confEnv = "CONTAINERS_STORAGE_CONF"

	// noIDMapEnv keeps the driver from finding out at the first pull, with
	// a mount and a forked process that a killed daemon leaves behind,
	// whether it could mount with mapped ids. It mounts nothing for us.
	noIDMapEnv = "_CONTAINERS_OVERLAY_DISABLE_IDMAP"
)

// openAttempts and openPause let the helpers of a killed daemon, which write
// until they notice, end: a directory can't be removed meanwhile.
const (
	openAttempts = 10
	openPause    = 100 * time.Millisecond
)

// openLibrary is tryOpenLibrary with patience for a killed predecessor.
func openLibrary(graphRoot, runRoot string) (lib cstorage.Store, err error) {
	for range openAttempts {
		if lib, err = tryOpenLibrary(graphRoot, runRoot); !errors.Is(err, unix.ENOTEMPTY) {
			break
		}
		time.Sleep(openPause)
	}
	return lib, err
}

// tryOpenLibrary opens containers/storage so that nothing outside the two
// directories is read, and no mount is left by a daemon that is killed:
// the driver probes the kernel by mounting, so it starts in a mount namespace
// of its own, and skip_mount_home spares the bind mount of its home.
func tryOpenLibrary(graphRoot, runRoot string) (cstorage.Store, error) {
	var lib cstorage.Store
	err := inPrivateMounts(func() error {
		restore, err := ignoreGlobalConf()
		if err != nil {
			return err
		}
		lib, err = cstorage.GetStore(cstypes.StoreOptions{
			GraphRoot:          graphRoot,
			RunRoot:            runRoot,
			GraphDriverName:    "overlay",
			GraphDriverOptions: []string{"overlay.skip_mount_home=true"},
			// An image's id must be the digest of its config: partial
			// pulls give some images another one.
			PullOptions: map[string]string{"enable_partial_images": "false"},
		})
		return errors.Join(err, restore(), probe(lib))
	})
	return lib, err
}

// probe makes the driver do now, while its mounts are private, what it would
// do later.
func probe(lib cstorage.Store) error {
	if lib == nil {
		return nil
	}
	driver, err := lib.GraphDriver()
	if err != nil {
		return err
	}
	driver.SupportsShifting(nil, nil)
	return nil
}

// ignoreGlobalConf sets the environment for the library. It keeps the library's defaults from being read from the
// machine's storage.conf: they would not be used, but a broken file would be
// an error. The library reads them once per process.
func ignoreGlobalConf() (restore func() error, err error) {
	old, had := os.LookupEnv(confEnv)
	if err := errors.Join(os.Setenv(confEnv, os.DevNull), os.Setenv(noIDMapEnv, "yes")); err != nil {
		return nil, err
	}
	return func() error {
		if had {
			return os.Setenv(confEnv, old)
		}
		return os.Unsetenv(confEnv)
	}, nil
}

// inPrivateMounts runs fn on a thread whose mounts nobody else sees. The
// thread ends with it.
func inPrivateMounts(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The first thread can't end, and /proc/self shows its
			// namespace: leave it as it is and hold it while another works.
			done <- inPrivateMounts(fn)
			runtime.UnlockOSThread()
			return
		}
		done <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
				return fmt.Errorf("unshare mounts: %w", err)
			}
			if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
				return fmt.Errorf("make mounts private: %w", err)
			}
			return fn()
		}()
	}()
	return <-done
}

// quarantineDamaged renames the library's record files that hold no records any
// more, so that the rest of the store can be used. Images that they described
// are pulled anew.
func quarantineDamaged(graphRoot string) []error {
	var problems []error
	for _, name := range []string{"overlay-images/images.json", "overlay-layers/layers.json", "overlay-containers/containers.json"} {
		path := filepath.Join(graphRoot, name)
		body, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) || err == nil && (len(body) == 0 || isRecords(body)) {
			continue
		}
		aside := fmt.Sprintf("%s.damaged-%d", path, time.Now().Unix())
		problems = append(problems, errors.Join(
			fmt.Errorf("%s is damaged, kept as %s", path, aside), err, os.Rename(path, aside)))
	}
	return problems
}

// isRecords tells whether body is what the library writes: a list of objects,
// each with an id.
func isRecords(body []byte) bool {
	type record struct {
		ID string `json:"id"`
	}
	var records []record
	return json.Unmarshal(body, &records) == nil &&
		!slices.ContainsFunc(records, func(r record) bool { return r.ID == "" })
}

// removeProbes removes the directories in which a killed daemon tried out the
// kernel's overlay. Its mounts went with its namespace.
func removeProbes(graphRoot string) {
	for _, name := range []string{"compat", "metacopy-check", "opaque-bug-check", "volatile-check"} {
		dirs, err := filepath.Glob(filepath.Join(graphRoot, "overlay", name+"*"))
		if err != nil {
			continue // the pattern is ours: only a root with brackets gets here
		}
		for _, dir := range dirs {
			_ = os.RemoveAll(dir) // an empty shell that harms nobody
		}
	}
}
