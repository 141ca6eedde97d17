package image

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"go.podman.io/image/v5/pkg/sysregistriesv2"
	"go.podman.io/image/v5/types"

	"github.com/gantry-cri/gantry/internal/errkind"
)

// configFiles are the files that pulls read.
type configFiles struct {
	o       Options
	private string // files of our own, below TempDir
}

// newConfigFiles writes the stand-ins for files that are not configured: the
// library reads files of the machine or of a user wherever it is given none.
func newConfigFiles(o Options) (configFiles, error) {
	c := configFiles{o: o, private: filepath.Join(o.TempDir, "config")}
	for _, dir := range []string{c.emptyDir(), c.endpointDir(), c.blobDir()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return c, err
		}
	}
	return c, os.WriteFile(c.emptyConf(), nil, 0o600)
}

func (c configFiles) emptyDir() string    { return filepath.Join(c.private, "empty") }
func (c configFiles) endpointDir() string { return filepath.Join(c.private, "endpoints") }
func (c configFiles) emptyConf() string   { return filepath.Join(c.private, "registries.conf") }
func (c configFiles) blobDir() string     { return filepath.Join(c.o.TempDir, "blobs") }

// system is the library's configuration without credentials, a fresh copy for
// each call.
func (c configFiles) system() *types.SystemContext {
	mode := types.ShortNameModePermissive
	conf, dropIns := c.registries()
	sys := &types.SystemContext{
		SystemRegistriesConfPath:    conf,
		SystemRegistriesConfDirPath: dropIns,
		UserShortNameAliasConfPath:  filepath.Join(c.private, "short-name-aliases.conf"),
		ShortNameMode:               &mode,
		RegistriesDirPath:           orDefault(c.o.RegistriesDir, DefaultRegistriesDir),
		DockerPerHostCertDirPath:    orDefault(c.o.CertsDir, DefaultCertsDir),
		AuthFilePath:                orDefault(c.o.AuthFile, filepath.Join(c.private, "auth.json")),
		BlobInfoCacheDir:            filepath.Join(c.private, "cache"),
		BigFilesTemporaryDir:        c.blobDir(),
		DockerRegistryUserAgent:     c.o.UserAgent,
	}
	return sys
}

func (c configFiles) registries() (conf, dropIns string) {
	conf, dropIns = c.o.RegistriesConf, c.o.RegistriesConfDir
	if conf == "" || conf == DefaultRegistriesConf && missing(conf) {
		conf = c.emptyConf()
	}
	switch {
	case dropIns != "":
	case c.o.RegistriesConf == "":
		dropIns = c.emptyDir()
	default:
		dropIns = c.o.RegistriesConf + ".d"
	}
	return conf, dropIns
}

// reload makes a change of registries.conf count from now on; the library
// remembers the file otherwise.
func (c configFiles) reload() error {
	if _, err := sysregistriesv2.TryUpdatingCache(c.system()); err != nil {
		return errkind.Errorf(errkind.Precondition, "registries configuration: %w", err)
	}
	return nil
}

func orDefault(path, otherwise string) string {
	if path == "" {
		return otherwise
	}
	return path
}

func missing(path string) bool {
	_, err := os.Stat(path)
	return errors.Is(err, fs.ErrNotExist)
}
