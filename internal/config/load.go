package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"
)

// fileMax is the most bytes that a configuration file can have.
const fileMax = 1 << 20

// Loaded is a merged and valid Config that remembers where each value came from.
type Loaded struct {
	Config
	origins map[path]origin // absent means the default
}

func newLoaded() *Loaded {
	return &Loaded{Config: Default(), origins: map[path]origin{}}
}

// Flags are the command line's part of the configuration. Use it after the
// flag set has been parsed.
type Flags struct {
	file *configFile
	sets []*keyFlag
}

// BindFlags adds --config and a flag for every key to fs.
func BindFlags(fs *pflag.FlagSet) *Flags {
	f := &Flags{file: &configFile{path: DefaultFile}}
	fs.Var(f.file, "config", "Configuration file; files in conf.d beside it are merged over it.")
	defaults := Default()
	for _, k := range keys() {
		v := &keyFlag{key: k, def: strings.Trim(k.value.toml(&defaults), `"`)}
		f.sets = append(f.sets, v)
		fs.Var(v, flagName(k.name), firstSentence(k.doc))
	}
	return f
}

func flagName(key string) string { return strings.ReplaceAll(key, "_", "-") }

func firstSentence(doc string) string {
	first, _, _ := strings.Cut(doc, ". ")
	return strings.TrimSuffix(first, ".")
}

// configFile is the --config flag.
type configFile struct {
	path string
	set  bool
}

func (f *configFile) String() string { return f.path }
func (f *configFile) Type() string   { return "file" }
func (f *configFile) Set(s string) error {
	if s == "" {
		return errors.New("want a file's name")
	}
	f.path, f.set = s, true
	return nil
}

// keyFlag is the flag of one key. Its arguments are applied when the files have
// been read; a bad one is refused at once.
type keyFlag struct {
	key  key[Config]
	def  string
	args []string
}

func (f *keyFlag) Type() string { return f.key.value.typeName() }

func (f *keyFlag) String() string {
	if len(f.args) == 0 {
		return f.def
	}
	return strings.Join(f.args, ",")
}

func (f *keyFlag) Set(arg string) error {
	var scratch Config
	args := append(f.args, arg)
	if err := f.key.value.setFlag(&scratch, args); err != nil {
		return err
	}
	f.args = args
	return nil
}

// Load merges the defaults, the configuration file, the *.toml files of conf.d
// beside it in the order of their names, and the flags, later ones over earlier
// ones, and checks the outcome. A list is replaced as a whole, a table key by
// key. An error names the file, the line and the key, or the flag.
func Load(flags *Flags) (*Loaded, error) {
	l, err := load(flags)
	if err == nil {
		err = l.validate()
	}
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	return l, nil
}

// RunRoot finds the run root of a daemon that has the flags and may run with an
// older configuration. An error says what of the present one can't be used; the
// run root is what the rest says then.
func RunRoot(flags *Flags) (string, error) {
	l, err := load(flags)
	if err != nil {
		err = fmt.Errorf("configuration: %w", err)
	}
	return l.RunRoot, err
}

// load merges what can be used; the error joins what can't.
func load(flags *Flags) (*Loaded, error) {
	l := newLoaded()
	src, err := readFile(flags.file.path)
	switch {
	case err == nil:
		err = l.apply(flags.file.path, src)
	case errors.Is(err, fs.ErrNotExist) && !flags.file.set:
		err = nil
	}
	inDir := l.applyDir(filepath.Join(filepath.Dir(flags.file.path), "conf.d"))
	return l, errors.Join(err, inDir, l.applyFlags(flags))
}

func (l *Loaded) applyDir(dir string) error {
	entries, err := os.ReadDir(dir) // sorted by name
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var errs []error
	for _, e := range entries {
		if filepath.Ext(e.Name()) != ".toml" {
			continue
		}
		file := filepath.Join(dir, e.Name())
		src, err := readFile(file)
		if err == nil {
			err = l.apply(file, src)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (l *Loaded) applyFlags(flags *Flags) error {
	for _, f := range flags.sets {
		if len(f.args) == 0 {
			continue
		}
		name := flagName(f.key.name)
		if err := f.key.value.setFlag(&l.Config, f.args); err != nil {
			return fmt.Errorf("flag --%s: %w", name, err)
		}
		l.origins[f.key.name] = origin{flag: name}
	}
	return nil
}

// validate checks what no single key can know.
func (l *Loaded) validate() error {
	if filepath.Clean(l.Root) == filepath.Clean(l.RunRoot) {
		return l.fault("run_root", "must not be root itself, %q", l.Root)
	}
	if len(l.PauseCommand) > 0 && l.PauseImage == "" {
		return l.fault("pause_command", "needs a pause_image")
	}
	if l.StreamTLSCert != "" && l.StreamTLSKey == "" {
		return l.fault("stream_tls_cert", "needs a stream_tls_key")
	}
	if l.StreamTLSKey != "" && l.StreamTLSCert == "" {
		return l.fault("stream_tls_key", "needs a stream_tls_cert")
	}
	return nil
}

// fault is an error about the merged value of a key.
func (l *Loaded) fault(name path, format string, args ...any) error {
	return fmt.Errorf("%s: %s: %s", l.origins[name], name, fmt.Sprintf(format, args...))
}

func readFile(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close() // only read from: nothing can be lost
	body, err := io.ReadAll(io.LimitReader(f, fileMax+1))
	if err != nil {
		return "", err
	}
	if len(body) > fileMax {
		return "", fmt.Errorf("%s: larger than %d bytes", file, fileMax)
	}
	return string(body), nil
}
