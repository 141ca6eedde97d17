// Package config is the daemon's configuration: one table of keys from which
// the defaults, the TOML keys, the flags, the documented default file and the
// help text are made. It only reads: it creates and changes nothing.
package config

import (
	"time"
)

// Config is the whole configuration of a daemon. The table in keys.go says
// what each field means and which values it takes.
type Config struct {
	Root                 string
	RunRoot              string
	Listen               string
	CNIConfDir           string
	CNIBinDirs           []string
	CNITimeout           time.Duration
	RegistriesConf       string
	Policy               string
	AuthFile             string
	DefaultRuntime       string
	Runtimes             map[string]Runtime // by handler name
	RuntimeTimeout       time.Duration
	LogLevel             string
	LogFormat            string
	PauseImage           string
	PauseCommand         []string
	CgroupParent         string
	SeccompProfile       string
	LogSizeMax           int64
	PidsLimit            int64
	ExecOutputMax        int64
	PullStallTimeout     time.Duration
	MaxParallelDownloads int
	GRPCMaxMessageSize   int
}

// Runtime is one OCI runtime.
type Runtime struct {
	Path string // of the binary; "" in a file means: look NAME up in PATH
	Root string // where the runtime keeps its state; "" means <run_root>/NAME
}
