// Package programs carries the C programs inside gantryd, so that one file
// is all that has to be installed, and puts them on disk.
package programs

import (
	"bytes"
	"crypto/sha256"
	_ "embed" // for the programs
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Built by make from monitor/, pause/, execwait/ and standin/ into this folder.
var (
	//go:embed gantry-monitor
	monitor []byte
	//go:embed pause
	pause []byte
	//go:embed execwait
	execwait []byte
	//go:embed standin
	standin []byte
)

// PauseArg is the path of the pause program inside PauseRootFS.
const PauseArg = "/pause"

// Paths says where Install has put things.
type Paths struct {
	Monitor     string // the gantry-monitor program
	ExecWait    string // the execwait program
	StandIn     string // the standin program
	PauseRootFS string // a root filesystem, to be used read-only, that holds pause at PauseArg
}

// Install writes the programs to dir, which must not be mounted noexec. It is
// idempotent and writes nothing that is there already. The names of what runs on
// the node tell its content: those of older daemons stay, as their processes
// run on.
func Install(dir string) (Paths, error) {
	paths := Paths{
		Monitor:     filepath.Join(dir, contentName("gantry-monitor", monitor)),
		ExecWait:    filepath.Join(dir, contentName("gantry-execwait", execwait)),
		StandIn:     filepath.Join(dir, contentName("gantry-standin", standin)),
		PauseRootFS: filepath.Join(dir, "pause-rootfs"),
	}
	// The mount points that a pod's pause container may need.
	for _, d := range []string{"", "dev", "etc", "proc", "run", "sys", "tmp"} {
		if err := os.MkdirAll(filepath.Join(paths.PauseRootFS, d), 0o755); err != nil {
			return Paths{}, fmt.Errorf("install programs: %w", err)
		}
	}
	err := errors.Join(
		installProgram(paths.Monitor, monitor),
		installProgram(paths.ExecWait, execwait),
		installProgram(paths.StandIn, standin),
		installProgram(filepath.Join(paths.PauseRootFS, PauseArg), pause),
	)
	if err != nil {
		return Paths{}, fmt.Errorf("install programs: %w", err)
	}
	return paths, nil
}

func contentName(name string, body []byte) string {
	sum := sha256.Sum256(body)
	return name + "-" + hex.EncodeToString(sum[:6])
}

// installProgram makes the file at path an executable with this body. One that
// is wrong is replaced, never written to: it may be running.
func installProgram(path string, body []byte) error {
	if ok, err := isProgram(path, body); ok || err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".tmp-")
	if err != nil {
		return err
	}
	_, err = f.Write(body)
	err = errors.Join(err, f.Chmod(0o755), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// isProgram reports whether path is that program already.
func isProgram(path string, body []byte) (bool, error) {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if !info.Mode().IsRegular() || info.Mode().Perm() != 0o755 || info.Size() != int64(len(body)) {
		return false, nil
	}
	have, err := os.ReadFile(path)
	return bytes.Equal(have, body), err
}

// Verify returns what is wrong with the programs that Install has written to
// dir. It changes nothing.
func Verify(dir string) error {
	var errs []error
	for path, body := range map[string][]byte{
		contentName("gantry-monitor", monitor):   monitor,
		contentName("gantry-execwait", execwait): execwait,
		contentName("gantry-standin", standin):   standin,
		filepath.Join("pause-rootfs", PauseArg):  pause,
	} {
		whole, err := isProgram(filepath.Join(dir, path), body)
		if err == nil && !whole {
			err = fmt.Errorf("%s is missing, or not what this gantryd has", filepath.Join(dir, path))
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
