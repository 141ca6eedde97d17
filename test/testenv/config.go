package testenv

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// writeConfig writes the daemon's configuration and the node files it reads.
func (e *Env) writeConfig(o Options) error {
	for _, dir := range []string{e.Root, e.RunRoot, e.CNIConfDir, e.LogDir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if !o.NoNetwork {
		if err := e.WriteNetwork(e.Network()); err != nil {
			return err
		}
	}
	files := map[string]string{
		e.path("policy.json"):     `{"default":[{"type":"insecureAcceptAnything"}]}`,
		e.path("registries.conf"): RegistriesConf(e.registry),
		e.path("gantry.toml"):     e.toml(o),
	}
	for name, text := range files {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// RegistriesConf maps every host that an image of the tests is named after to
// the registry at address.
func RegistriesConf(address string) string {
	var b strings.Builder
	b.WriteString("unqualified-search-registries = [\"docker.io\"]\nshort-name-mode = \"disabled\"\n")
	for _, host := range registryHosts() {
		fmt.Fprintf(&b, "\n[[registry]]\nprefix = %q\nlocation = %q\ninsecure = true\n", host, address)
	}
	return b.String()
}

func registryHosts() []string {
	return []string{"docker.io", "registry.k8s.io", "k8s.gcr.io", "gcr.io"}
}

func (e *Env) toml(o Options) string {
	var b strings.Builder
	fmt.Fprintf(&b, "cgroup_manager = %q\ncgroup_parent = %q\nlog_level = \"debug\"\n%s\n", e.CgroupManager, e.CgroupParent, o.Config)
	for name, path := range e.runtimes(o) {
		fmt.Fprintf(&b, "\n[runtimes.%s]\npath = %q\nroot = %q\n", name, path, filepath.Join(e.RunRoot, "runtime-"+name))
	}
	return b.String()
}

func (e *Env) runtimes(o Options) map[string]string {
	all := map[string]string{e.RuntimeName: Program(e.t, e.RuntimeName)}
	for name, path := range o.Runtimes {
		all[name] = path
	}
	return all
}

// Network returns a CNI configuration list: a bridge and a subnet of the
// environment's own, NAT, and host ports.
func (e *Env) Network() map[string]any {
	return map[string]any{
		"cniVersion": "1.0.0",
		"name":       e.Name,
		"plugins": []any{
			map[string]any{
				"type":        "bridge",
				"bridge":      e.Bridge,
				"isGateway":   true,
				"ipMasq":      true,
				"hairpinMode": true,
				"ipam": map[string]any{
					"type":    "host-local",
					"dataDir": e.path("ipam"),
					"ranges":  []any{[]any{map[string]any{"subnet": e.Subnet}}},
					"routes":  []any{map[string]any{"dst": "0.0.0.0/0"}},
				},
			},
			map[string]any{
				"type":         "portmap",
				"capabilities": map[string]any{"portMappings": true},
				"snat":         true,
			},
		},
	}
}

// WriteNetwork puts a CNI configuration list into place in one step.
func (e *Env) WriteNetwork(conflist map[string]any) error {
	data, err := json.MarshalIndent(conflist, "", "  ")
	if err != nil {
		return err
	}
	tmp := e.path("conflist.new")
	if err := os.WriteFile(tmp, data, 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(e.CNIConfDir, "10-"+e.Name+".conflist"))
}

func (e *Env) path(elem ...string) string {
	return filepath.Join(append([]string{e.Dir}, elem...)...)
}
