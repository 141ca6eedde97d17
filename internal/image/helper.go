package image

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	helperclient "github.com/docker/docker-credential-helpers/client"
	protocol "github.com/docker/docker-credential-helpers/credentials"
	"go.podman.io/image/v5/pkg/sysregistriesv2"
	"go.podman.io/image/v5/types"
	"golang.org/x/sys/unix"

	"github.com/gantry-cri/gantry/internal/errkind"
)

// helperMaxOutput bounds what a credential helper may say.
const helperMaxOutput = 64 << 10

// Credential helpers are programs that print a registry's credentials; auth.json
// names them. The library runs them, too, but would wait for one for ever. So
// they are asked before it gets to: see
// https://github.com/docker/docker-credential-helpers#development

// withHelper makes sys use what a credential helper has for the registry host,
// where one is responsible; done forgets it again. A helper that fails or hangs
// is an error: without credentials the registry would only say so less clearly.
func (c configFiles) withHelper(ctx context.Context, sys *types.SystemContext, host string) (_ *types.SystemContext, done func(), err error) {
	questions, err := c.helpersFor(sys, host)
	if err != nil {
		return nil, nil, err
	}
	for _, q := range questions {
		login, err := c.askHelper(ctx, q)
		if err != nil {
			return nil, nil, err
		}
		if login == (types.DockerAuthConfig{}) {
			continue
		}
		file, err := authFile(host, login)
		if err != nil {
			return nil, nil, fmt.Errorf("credentials of %s: %w", host, err)
		}
		changed := *sys
		changed.AuthFilePath = fmt.Sprintf("/proc/self/fd/%d", file.Fd())
		return &changed, func() { _ = file.Close() }, nil // memory only
	}
	return sys, func() {}, nil
}

// question is what a helper is asked.
type question struct{ helper, server string }

// helpersFor are the helpers that are responsible for host, in the order in
// which they are asked: as registries.conf says, that is auth.json's as a rule.
func (c configFiles) helpersFor(sys *types.SystemContext, host string) ([]question, error) {
	kinds, err := sysregistriesv2.CredentialHelpers(sys)
	if err != nil {
		return nil, errkind.Errorf(errkind.Precondition, "registries configuration: %w", err)
	}
	var questions []question
	for _, kind := range kinds {
		if kind != sysregistriesv2.AuthenticationFileHelper {
			questions = append(questions, question{kind, host})
			continue
		}
		q, err := c.fileHelper(sys.AuthFilePath, host)
		if err != nil {
			return nil, err
		}
		if q.helper != "" {
			questions = append(questions, q)
		}
	}
	for _, q := range questions {
		if q.helper != filepath.Base(q.helper) {
			return nil, errkind.Errorf(errkind.Precondition, "credential helper %q is not a name", q.helper)
		}
	}
	return questions, nil
}

// fileHelper is the helper that auth.json names for host: its own, or the one
// for all.
func (c configFiles) fileHelper(path, host string) (q question, err error) {
	body, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return q, nil
	}
	var conf struct {
		CredHelpers map[string]string `json:"credHelpers"`
		CredsStore  string            `json:"credsStore"`
	}
	if err == nil {
		err = json.Unmarshal(body, &conf)
	}
	if err != nil {
		return q, errkind.Errorf(errkind.Precondition, "credentials %s: %w", path, err)
	}
	servers := []string{host}
	if host == "docker.io" { // what docker login calls it
		servers = []string{"https://index.docker.io/v1/", "index.docker.io", host}
	}
	for _, server := range servers {
		if helper := conf.CredHelpers[server]; helper != "" {
			return question{helper, server}, nil
		}
	}
	return question{conf.CredsStore, servers[0]}, nil
}

// askHelper asks one helper; nothing if it knows of no credentials.
func (c configFiles) askHelper(ctx context.Context, q question) (login types.DockerAuthConfig, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.o.HelperTimeout)
	defer cancel()
	name := "docker-credential-" + q.helper
	found, err := helperclient.Get(func(args ...string) helperclient.Program { return newHelper(ctx, name, args) }, q.server)
	switch {
	case err == nil && found.Username == "<token>":
		return types.DockerAuthConfig{IdentityToken: found.Secret}, nil
	case err == nil:
		return types.DockerAuthConfig{Username: found.Username, Password: found.Secret}, nil
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return login, errkind.Errorf(errkind.Timeout, "credential helper %s for %s: no answer within %s", name, q.server, c.o.HelperTimeout)
	case protocol.IsErrCredentialsNotFoundMessage(err.Error()):
		return login, nil
	}
	return login, errkind.Errorf(errkind.Precondition, "credential helper %s for %s: %w", name, q.server, err)
}

// helper is one run of a helper, with what it leaves running ended.
type helper struct{ cmd *exec.Cmd }

func newHelper(ctx context.Context, name string, args []string) helper {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	cmd.WaitDelay = time.Second
	return helper{cmd}
}

func (h helper) Input(in io.Reader) { h.cmd.Stdin = in }

func (h helper) Output() ([]byte, error) {
	var out, complaint capped
	h.cmd.Stdout, h.cmd.Stderr = &out, &complaint
	err := h.cmd.Run()
	if text := strings.TrimSpace(complaint.String()); err != nil && text != "" {
		err = fmt.Errorf("%w: %s", err, text)
	}
	return out.Bytes(), err
}

// capped keeps the beginning of what is written.
type capped struct{ bytes.Buffer }

func (c *capped) Write(p []byte) (int, error) {
	keep := min(len(p), helperMaxOutput-c.Len())
	_, _ = c.Buffer.Write(p[:keep]) // a buffer takes everything
	return len(p), nil
}

// authFile is an auth.json in memory: the library takes credentials that are
// not for the image's own registry, but for a mirror, from a file only.
func authFile(host string, login types.DockerAuthConfig) (*os.File, error) {
	user := login.Username
	if login.IdentityToken != "" {
		user = "<token>"
	}
	entry := map[string]string{"auth": base64.StdEncoding.EncodeToString([]byte(user + ":" + login.Password))}
	if login.IdentityToken != "" {
		entry["identitytoken"] = login.IdentityToken
	}
	body, err := json.Marshal(map[string]any{"auths": map[string]any{host: entry}})
	if err != nil {
		return nil, err
	}
	fd, err := unix.MemfdCreate("auth.json", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	file := os.NewFile(uintptr(fd), "auth.json")
	if _, err := file.Write(body); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}
