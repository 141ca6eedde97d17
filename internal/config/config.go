// Package config is the daemon's configuration: one table of keys (keys.go)
// from which the defaults, the TOML keys, the flags, the documented default
// file and the help text are made. It only reads: it creates and changes
// nothing.
package config

import (
	"maps"
	"slices"
	"time"
)

// DefaultFile is read when --config names no other. It need not exist.
const DefaultFile = "/etc/gantry/gantry.toml"

// Config is the whole configuration of a daemon. The table in keys.go says
// what each field means, which values it takes and what it is by default.
type Config struct {
	Root          string
	RunRoot       string
	Listen        string
	MetricsListen string

	CNIConfDir string
	CNIBinDirs []string
	CNITimeout time.Duration

	RegistriesConf       string
	Policy               string
	PolicyDir            string // "" means none
	CertsDir             string
	SignaturesDir        string
	DecryptionKeysPath   string   // "" means none
	PinnedImages         []string // names, or patterns with *
	AuthFile             string   // "" means none
	PullStallTimeout     time.Duration
	MaxParallelDownloads int
	MaxImageBytes        int64
	MaxImageLayers       int
	MaxLayerBytes        int64
	MaxLayerEntries      int64
	MaxManifestBytes     int64

	DefaultRuntime string             // "" until ResolveRuntimes has chosen one
	Runtimes       map[string]Runtime // by handler name; replaced, never changed
	RuntimeTimeout time.Duration

	CDISpecDirs []string // later ones win over earlier ones
	HooksDirs   []string // later ones win over earlier ones

	PauseImage      string // "" means the built-in pause
	PauseCommand    []string
	CgroupManager   string
	CgroupParent    string
	SeccompProfile  string // "" means the built-in profile
	AppArmorProfile string
	PidsLimit       int64  // 0 means none
	LogSizeMax      int64  // bytes; -1 means unlimited
	JournalSocket   string // "" means none
	ExecOutputMax   int64  // bytes

	StreamAddress     string // a host name or an address
	StreamPort        int    // 0 means a free one
	StreamTLSCert     string // "" means no TLS
	StreamTLSKey      string
	StreamIdleTimeout time.Duration

	StatsCollectionPeriod time.Duration

	LogLevel           string
	LogFormat          string
	GRPCMaxMessageSize int // bytes
	EventQueue         int // events
}

// Runtime is one OCI runtime.
type Runtime struct {
	Path string // of the binary; "" until ResolveRuntimes has found it in PATH
	Root string // where the runtime keeps its state; "" until ResolveRuntimes has set <run_root>/NAME

	Args                         []string          // before the command: --platform=systrap
	DefaultAnnotations           map[string]string // never changed
	AllowedAnnotations           []string          // prefixes
	PrivilegedWithoutHostDevices bool
}

// Default returns the configuration of a daemon without files and flags.
func Default() Config {
	var c Config
	for _, k := range keys() {
		k.value.reset(&c)
	}
	return c
}

// withRuntime returns runtimes with one entry replaced; it shares nothing with
// the argument.
func withRuntime(runtimes map[string]Runtime, name string, r Runtime) map[string]Runtime {
	out := maps.Clone(runtimes)
	if out == nil {
		out = map[string]Runtime{}
	}
	out[name] = r
	return out
}

func runtimeNames(runtimes map[string]Runtime) []string {
	return slices.Sorted(maps.Keys(runtimes))
}
