package image

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"net/url"
	"path/filepath"
	"strings"

	"go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/pkg/tlsclientconfig"
	"go.podman.io/image/v5/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/internal/errkind"
)

// credentials are those of a pull request.
type credentials struct {
	login  types.DockerAuthConfig
	token  string // bearer token, used as it is
	server string // host that they are for; "" if the caller did not say
}

// parseAuth reads a CRI AuthConfig; nil for none.
func parseAuth(auth *runtimeapi.AuthConfig) (*credentials, error) {
	c := credentials{
		login: types.DockerAuthConfig{
			Username:      auth.GetUsername(),
			Password:      auth.GetPassword(),
			IdentityToken: auth.GetIdentityToken(),
		},
		token:  auth.GetRegistryToken(),
		server: serverHost(auth.GetServerAddress()),
	}
	if c.login.Username == "" && c.login.IdentityToken == "" && auth.GetAuth() != "" {
		decoded, err := base64.StdEncoding.DecodeString(auth.GetAuth())
		if err != nil {
			return nil, errkind.Errorf(errkind.Invalid, "credentials: auth is not base64")
		}
		user, password, ok := strings.Cut(string(decoded), ":")
		if !ok {
			return nil, errkind.Errorf(errkind.Invalid, "credentials: auth is not base64 of user:password")
		}
		c.login.Username, c.login.Password = user, strings.Trim(password, "\x00")
	}
	if c.login == (types.DockerAuthConfig{}) && c.token == "" {
		return nil, nil
	}
	return &c, nil
}

// apply gives the credentials to sys if they are for the registry: the one
// that the caller named; else, for a name that may be several registries',
// Docker Hub, whose credentials the kubelet sends for short names.
func (c *credentials) apply(sys *types.SystemContext, registry string, only bool) {
	switch {
	case c == nil:
	case c.server != "" && c.server != registry:
	case c.server == "" && !only && registry != "docker.io":
	default:
		// Set even for a token alone: the library withholds both from
		// mirrors only if there is one.
		login := c.login
		sys.DockerAuthConfig = &login
		sys.DockerBearerRegistryToken = c.token
	}
}

// credentials are added to an endpoint's configuration, where the request has
// none for it and a helper knows them.
func (f *streamFetcher) credentials(ctx context.Context, c candidate, from endpoint) (*types.SystemContext, func(), error) {
	host, _, _ := strings.Cut(from.repo, "/")
	if err := checkCertificates(filepath.Join(from.sys.DockerPerHostCertDirPath, host)); err != nil {
		return nil, nil, err
	}
	if from.sys.DockerAuthConfig != nil && host == reference.Domain(c.ref) {
		return from.sys, func() {}, nil
	}
	return f.files.withHelper(ctx, from.sys, host)
}

// checkCertificates reads what certs.d has for a registry, as the library will,
// to say whose mistake it is when it can't be used.
func checkCertificates(dir string) error {
	if err := tlsclientconfig.SetupCertificates(dir, &tls.Config{}); err != nil {
		return errkind.Errorf(errkind.Precondition, "certificates in %s: %w", dir, err)
	}
	return nil
}

// serverHost is the registry of a server address, which may be a host, a URL,
// or one of the old names of Docker Hub.
func serverHost(address string) string {
	if address == "" {
		return ""
	}
	host := address
	if u, err := url.Parse(address); err == nil && u.Host != "" {
		host = u.Host
	} else {
		host, _, _ = strings.Cut(address, "/")
	}
	switch host {
	case "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com":
		return "docker.io"
	}
	return host
}
