package network

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/gantry-cri/gantry/internal/errkind"
)

const (
	stdoutMax = 4 << 20     // bytes of a plugin's result; more is a failure
	stderrMax = 4 << 10     // bytes of a plugin's stderr that are kept for an error
	pipeDelay = time.Second // how long a dead plugin's children may hold its pipes

	busyRetries = 20 // of a plugin that is just being installed ("text file busy")
	busyDelay   = 50 * time.Millisecond
)

var errTooMuch = errors.New("too much output")

// runner runs plugins for libcni (it implements invoke.Exec). Each plugin has
// a process group of its own, which is killed as a whole when the context ends.
type runner struct {
	version.PluginDecoder
	// held, if not nil, is inherited by every process of the run, so that its
	// lock lasts as long as any of them lives.
	held *os.File
}

// ExecPlugin implements invoke.Exec.
func (r *runner) ExecPlugin(ctx context.Context, path string, stdin []byte, env []string) ([]byte, error) {
	for try := 0; ; try++ {
		out, err := r.run(ctx, path, stdin, env)
		if !errors.Is(err, syscall.ETXTBSY) || try == busyRetries {
			return out, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(busyDelay):
		}
	}
}

func (r *runner) run(ctx context.Context, path string, stdin []byte, env []string) ([]byte, error) {
	stdout := &limited{max: stdoutMax, strict: true}
	stderr := &limited{max: stderrMax}
	cmd := exec.CommandContext(ctx, path)
	cmd.Env = env
	cmd.Stdin = bytes.NewReader(stdin)
	cmd.Stdout = stdout
	cmd.Stderr = stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = pipeDelay
	if r.held != nil {
		cmd.ExtraFiles = []*os.File{r.held}
	}
	err := cmd.Run()
	if err == nil || errors.Is(err, exec.ErrWaitDelay) && cmd.ProcessState.Success() {
		return stdout.Bytes(), nil
	}
	name := filepath.Base(path)
	if ctx.Err() != nil {
		err = fmt.Errorf("%s was killed: %w", name, context.Cause(ctx))
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return nil, errkind.Wrap(errkind.Timeout, err)
		}
		return nil, err
	}
	if stdout.overflown { // the plugin's own end, by a broken pipe, says less
		return nil, fmt.Errorf("%s wrote more than %d bytes", name, stdoutMax)
	}
	err = pluginError(name, err, stdout.Bytes(), stderr.Bytes())
	if errkind.SaysFull(err.Error()) {
		err = errkind.Wrap(errkind.Exhausted, err)
	}
	return nil, err
}

// pluginError is what the plugin itself says about its failure
// (https://www.cni.dev/docs/spec/#error), else what is known of it.
func pluginError(name string, err error, stdout, stderr []byte) error {
	var said types.Error
	if json.Unmarshal(stdout, &said) == nil && said.Msg != "" {
		return &said
	}
	if errors.Is(err, syscall.ETXTBSY) {
		return err
	}
	words := strings.TrimSpace(string(bytes.Join([][]byte{stderr, head(stdout)}, []byte(" "))))
	if words == "" {
		return fmt.Errorf("%s: %w", name, err)
	}
	return fmt.Errorf("%s: %w: %s", name, err, words)
}

func head(b []byte) []byte { return b[:min(len(b), stderrMax)] }

// FindInPath implements invoke.Exec.
func (*runner) FindInPath(plugin string, dirs []string) (string, error) {
	return findPlugin(plugin, dirs)
}

// findPlugin returns the path of a plugin's binary.
func findPlugin(plugin string, dirs []string) (string, error) {
	if plugin == "" || plugin != filepath.Base(plugin) || plugin == ".." || plugin == "." {
		return "", fmt.Errorf("a CNI plugin can't have the name %q", plugin)
	}
	for _, dir := range dirs {
		path := filepath.Join(dir, plugin)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", errkind.Errorf(errkind.Unavailable, "CNI plugin %q is not in %s", plugin, strings.Join(dirs, " or "))
}

// limited keeps the first max bytes written to it. Beyond them it drops, or
// fails if strict.
type limited struct {
	buf    bytes.Buffer // not embedded: io.Copy would use its ReadFrom and pass us by
	max    int
	strict bool

	overflown bool
}

func (l *limited) Bytes() []byte { return l.buf.Bytes() }

func (l *limited) Write(p []byte) (int, error) {
	room := l.max - l.buf.Len()
	if len(p) <= room {
		return l.buf.Write(p)
	}
	l.buf.Write(p[:room])
	l.overflown = true
	if l.strict {
		return 0, errTooMuch
	}
	return len(p), nil
}
