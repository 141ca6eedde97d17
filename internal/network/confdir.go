package network

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/utils"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/gantry-cri/gantry/internal/errkind"
)

// statusVersion is the first version of the CNI specification with STATUS and GC.
const statusVersion = "1.1.0"

// configured is a network that new pods can get. It never changes.
type configured struct {
	file string // its base name
	conf string // the list as JSON, complete: no other file is needed with it
	list *libcni.NetworkConfigList
}

// has11 reports whether the network's plugins know STATUS and GC.
func (n *configured) has11() bool {
	ok, err := version.GreaterThanOrEqualTo(n.list.CNIVersion, statusVersion)
	return ok && err == nil
}

func (n *configured) String() string { return fmt.Sprintf("network %q (%s)", n.list.Name, n.file) }

// scan is what was found in the configuration directory.
type scan struct {
	network  *configured // nil if there is none
	problems []string    // files that can't be used, each with its reason
	unusable error       // why no pod can be attached, as far as files tell; kind Unavailable
}

// scanDir reads dir. The network is that of the first usable file by name. It
// also looks whether the network's plugins are in binDirs.
func scanDir(dir string, binDirs []string) scan {
	var s scan
	entries, err := os.ReadDir(dir) // sorted by name
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("directory %s does not exist", dir)
		}
		s.unusable = errkind.Errorf(errkind.Unavailable, "no CNI network: %w", err)
		return s
	}
	for _, e := range entries {
		if !slices.Contains([]string{".conf", ".conflist", ".json"}, filepath.Ext(e.Name())) {
			continue
		}
		n, err := readNetwork(filepath.Join(dir, e.Name()))
		if err != nil {
			s.problems = append(s.problems, fmt.Sprintf("%s: %v", e.Name(), err))
		} else if s.network == nil {
			s.network = n
		}
	}
	switch {
	case s.network != nil:
		s.unusable = missingPlugins(s.network, binDirs)
	case len(s.problems) > 0:
		s.unusable = errkind.Errorf(errkind.Unavailable, "no usable CNI network in %s: %s", dir, strings.Join(s.problems, "; "))
	default:
		s.unusable = errkind.Errorf(errkind.Unavailable, "no CNI network in %s: it has no *.conflist, *.conf or *.json file", dir)
	}
	return s
}

// readNetwork reads a configuration file: a list, or one plugin.
func readNetwork(path string) (*configured, error) {
	body, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	list, err := parseFile(path, body)
	if err != nil {
		return nil, err
	}
	if err := checkList(list); err != nil {
		return nil, err
	}
	return &configured{file: filepath.Base(path), conf: string(list.Bytes), list: list}, nil
}

// parseFile returns the file's list, whose Bytes are complete.
func parseFile(path string, body []byte) (*libcni.NetworkConfigList, error) {
	var shape struct {
		Type string `json:"type"` // of a lone plugin; a list has none
	}
	if err := json.Unmarshal(body, &shape); err != nil {
		return nil, err
	}
	if shape.Type != "" {
		return lone(body)
	}
	list, err := libcni.NetworkConfFromFile(path)
	if err != nil {
		return nil, err
	}
	return inlined(list)
}

// lone returns the list of the one plugin that body configures.
func lone(body []byte) (*libcni.NetworkConfigList, error) {
	plugin, err := libcni.NetworkPluginConfFromBytes(body)
	if err != nil {
		return nil, err
	}
	list := struct {
		CNIVersion string            `json:"cniVersion,omitempty"`
		Name       string            `json:"name"`
		Plugins    []json.RawMessage `json:"plugins"`
	}{plugin.Network.CNIVersion, plugin.Network.Name, []json.RawMessage{body}}
	text, err := json.Marshal(list)
	if err != nil {
		return nil, err
	}
	return libcni.NetworkConfFromBytes(text)
}

// inlined returns list with the plugins that libcni has read from files of
// their own made part of its Bytes.
func inlined(list *libcni.NetworkConfigList) (*libcni.NetworkConfigList, error) {
	if list.LoadOnlyInlinedPlugins {
		return list, nil
	}
	var top map[string]json.RawMessage
	if err := json.Unmarshal(list.Bytes, &top); err != nil {
		return nil, err
	}
	plugins := make([]json.RawMessage, len(list.Plugins))
	for i, p := range list.Plugins {
		plugins[i] = p.Bytes
	}
	var err error
	if top["plugins"], err = json.Marshal(plugins); err != nil {
		return nil, err
	}
	top["loadOnlyInlinedPlugins"] = json.RawMessage("true")
	body, err := json.Marshal(top)
	if err != nil {
		return nil, err
	}
	return libcni.NetworkConfFromBytes(body)
}

func checkList(list *libcni.NetworkConfigList) error {
	if err := utils.ValidateNetworkName(list.Name); err != nil {
		return err
	}
	if len(list.Plugins) == 0 {
		return errors.New("no plugins")
	}
	if list.CNIVersion != "" && !slices.Contains(version.All.SupportedVersions(), list.CNIVersion) {
		return fmt.Errorf("cniVersion %q is none of %s", list.CNIVersion, strings.Join(version.All.SupportedVersions(), ", "))
	}
	return nil
}

// missingPlugins is an error if a plugin of n, or the IPAM plugin of one, is
// in none of binDirs.
func missingPlugins(n *configured, binDirs []string) error {
	for _, p := range n.list.Plugins {
		for _, plugin := range []string{p.Network.Type, p.Network.IPAM.Type} {
			if plugin == "" && p.Network.Type != "" {
				continue
			}
			if _, err := findPlugin(plugin, binDirs); err != nil {
				return errkind.Errorf(errkind.Unavailable, "%v: %w", n, err)
			}
		}
	}
	return nil
}

// Found is what a directory of configurations has for new pods.
type Found struct {
	Name, File string   // of the network; "" if there is none
	Problems   []string // files that can't be used, each with its reason
	Err        error    // why no pod can be attached, as far as files tell
}

// Look reads a directory of configurations once, and looks for the plugins.
func Look(confDir string, binDirs []string) Found {
	s := scanDir(confDir, binDirs)
	f := Found{Problems: s.problems, Err: s.unusable}
	if s.network != nil {
		f.Name, f.File = s.network.list.Name, filepath.Join(confDir, s.network.file)
	}
	return f
}
