package hooks

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	rspec "github.com/opencontainers/runtime-spec/specs-go"
)

// version is the only one of the format that is in use.
const version = "1.0.0"

// hook is one file.
type hook struct {
	Version string     `json:"version"`
	Hook    rspec.Hook `json:"hook"`
	When    when       `json:"when"`
	Stages  []string   `json:"stages"`
}

// when says which containers a hook is for: those that meet every condition
// that is set.
type when struct {
	Always        *bool             `json:"always"`
	Annotations   map[string]string `json:"annotations"` // patterns of a key and its value
	Commands      []string          `json:"commands"`    // patterns of the program, one of which must match
	HasBindMounts *bool             `json:"hasBindMounts"`

	annotations []pair
	commands    []*regexp.Regexp
}

type pair struct{ key, value *regexp.Regexp }

// read reads and checks one file.
func read(file string) (*hook, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > fileMax {
		return nil, fmt.Errorf("not a regular file of at most %d bytes", fileMax)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return parse(text)
}

func parse(text []byte) (*hook, error) {
	var h hook
	if err := json.Unmarshal(text, &h); err != nil {
		return nil, err
	}
	switch {
	case h.Version != version:
		return nil, fmt.Errorf("version %q is not %s", h.Version, version)
	case !filepath.IsAbs(h.Hook.Path):
		return nil, fmt.Errorf("hook.path %q is not absolute", h.Hook.Path)
	case h.Hook.Timeout != nil && *h.Hook.Timeout <= 0:
		return nil, fmt.Errorf("hook.timeout %d is not positive", *h.Hook.Timeout)
	case len(h.Stages) == 0:
		return nil, errors.New("no stages")
	}
	inContainer := func(stage string) bool { return stage == "startContainer" } // its path is the container's
	if _, err := os.Stat(h.Hook.Path); err != nil && !slices.ContainsFunc(h.Stages, inContainer) {
		return nil, fmt.Errorf("hook.path: %w", err)
	}
	for _, stage := range h.Stages {
		if stageOf(&rspec.Hooks{}, stage) == nil {
			return nil, fmt.Errorf("unknown stage %q", stage)
		}
	}
	return &h, h.When.compile()
}

// compile checks the conditions: there must be one, or nothing would say
// whether the hook is for every container or for none.
func (w *when) compile() error {
	if w.Always == nil && len(w.Annotations) == 0 && len(w.Commands) == 0 && w.HasBindMounts == nil {
		return errors.New("when has no condition")
	}
	for key, value := range w.Annotations {
		k, err := regexp.Compile(key)
		if err != nil {
			return fmt.Errorf("when.annotations: %w", err)
		}
		v, err := regexp.Compile(value)
		if err != nil {
			return fmt.Errorf("when.annotations: %w", err)
		}
		w.annotations = append(w.annotations, pair{k, v})
	}
	for _, command := range w.Commands {
		c, err := regexp.Compile(command)
		if err != nil {
			return fmt.Errorf("when.commands: %w", err)
		}
		w.commands = append(w.commands, c)
	}
	return nil
}

func (h *hook) matches(spec *rspec.Spec, bindMounts bool) bool {
	w := h.When
	if w.Always != nil && !*w.Always || w.HasBindMounts != nil && *w.HasBindMounts != bindMounts {
		return false
	}
	for _, p := range w.annotations {
		if !p.matches(spec.Annotations) {
			return false
		}
	}
	if len(w.commands) == 0 {
		return true
	}
	return spec.Process != nil && len(spec.Process.Args) > 0 &&
		slices.ContainsFunc(w.commands, func(c *regexp.Regexp) bool { return c.MatchString(spec.Process.Args[0]) })
}

func (p pair) matches(annotations map[string]string) bool {
	for key, value := range annotations {
		if p.key.MatchString(key) && p.value.MatchString(value) {
			return true
		}
	}
	return false
}

func (h *hook) add(spec *rspec.Spec) {
	if spec.Hooks == nil {
		spec.Hooks = &rspec.Hooks{}
	}
	for _, stage := range h.Stages {
		list := stageOf(spec.Hooks, stage)
		*list = append(*list, h.Hook)
	}
}

// stageOf is the list of one stage; nil for a stage that there is not.
func stageOf(hooks *rspec.Hooks, stage string) *[]rspec.Hook {
	switch stage {
	case "prestart":
		//lint:ignore SA1019 files still name it
		return &hooks.Prestart
	case "createRuntime":
		return &hooks.CreateRuntime
	case "createContainer":
		return &hooks.CreateContainer
	case "startContainer":
		return &hooks.StartContainer
	case "poststart":
		return &hooks.Poststart
	case "poststop":
		return &hooks.Poststop
	}
	return nil
}
