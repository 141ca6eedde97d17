package config

import (
	"errors"

	"github.com/spf13/pflag"
)

// Flags are the command line's part of the configuration.
type Flags struct{}

// BindFlags adds --config and a flag for every key to fs.
func BindFlags(fs *pflag.FlagSet) *Flags { return &Flags{} }

// Loaded is a Config that remembers where each value came from.
type Loaded struct {
	Config
}

// Load merges defaults, the configuration file, conf.d and the flags, later
// ones over earlier ones, and validates the outcome.
func Load(flags *Flags) (*Loaded, error) { return nil, errors.New("not written yet") }

// Effective returns the merged configuration as TOML.
func (l *Loaded) Effective() string { return "" }

// ResolveRuntimes returns c with every runtime's Path and Root and with
// DefaultRuntime filled in. lookPath finds a binary by name: exec.LookPath.
func (c Config) ResolveRuntimes(lookPath func(name string) (string, error)) (Config, error) {
	return c, errors.New("not written yet")
}
