package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/gantry-cri/gantry/test/testenv"
)

// conflist is the network of a server, or of the floor: equal ones, but for
// the bridge and the subnet.
func (b *bench) conflist(name string, number int) ([]byte, error) {
	return json.MarshalIndent(map[string]any{
		"cniVersion": "1.0.0",
		"name":       "bench-" + name,
		"plugins": []any{
			map[string]any{
				"type":        "bridge",
				"bridge":      fmt.Sprintf("bench%d", number),
				"isGateway":   true,
				"ipMasq":      true,
				"hairpinMode": true,
				"ipam": map[string]any{
					"type":    "host-local",
					"dataDir": filepath.Join(runDir(b.dir), "ipam-"+name),
					"ranges":  []any{[]any{map[string]any{"subnet": fmt.Sprintf("10.%d.0.0/20", 200+number)}}},
					"routes":  []any{map[string]any{"dst": "0.0.0.0/0"}},
				},
			},
			map[string]any{
				"type":         "portmap",
				"capabilities": map[string]any{"portMappings": true},
				"snat":         true,
			},
		},
	}, "", "  ")
}

// runtimeName is the handler's name of the runtime.
func (b *bench) runtimeName() string { return filepath.Base(b.plan.runtime) }

func (b *bench) configureGantry(s *server) ([]string, error) {
	program := b.plan.gantryd
	if program == "" {
		root, err := testenv.Root()
		if err != nil {
			return nil, err
		}
		program = filepath.Join(root, "bin", "gantryd")
	}
	if _, err := os.Stat(program); err != nil {
		return nil, fmt.Errorf("gantryd is not built (make build does it): %w", err)
	}
	handler := b.runtimeName()
	files := map[string]string{
		"policy.json":     `{"default":[{"type":"insecureAcceptAnything"}]}`,
		"registries.conf": testenv.RegistriesConf(b.registry.Address),
		"gantry.toml": fmt.Sprintf("[runtimes.%s]\npath = %q\nroot = %q\n",
			handler, b.plan.runtime, filepath.Join(s.run, "runtime")),
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	return []string{
		program,
		"--config", filepath.Join(s.dir, "gantry.toml"),
		"--root", filepath.Join(s.dir, "root"),
		"--run-root", filepath.Join(s.run, "state"),
		"--listen", s.socket,
		"--cni-conf-dir", s.netDir(),
		"--cni-bin-dir", b.plugins,
		"--registries-conf", filepath.Join(s.dir, "registries.conf"),
		"--policy", filepath.Join(s.dir, "policy.json"),
		"--default-runtime", handler,
	}, nil
}

const containerdConfig = `version = 2
root = %q
state = %q
[grpc]
  address = %q
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = %q
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = %q
    conf_dir = %q
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = %q
  [plugins."io.containerd.grpc.v1.cri".containerd]
    default_runtime_name = "bench"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.bench]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.bench.options]
        BinaryName = %q
        Root = %q
`

func (b *bench) configureContainerd(s *server) ([]string, error) {
	program, err := exec.LookPath("containerd")
	if err != nil {
		return nil, fmt.Errorf("containerd is not installed (test/setup/install.sh does it): %w", err)
	}
	hosts := filepath.Join(s.dir, "hosts.d")
	for _, host := range registryHosts() {
		dir := filepath.Join(hosts, host)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
		text := fmt.Sprintf("[host.%q]\n  capabilities = [\"pull\", \"resolve\"]\n", "http://"+b.registry.Address)
		if err := os.WriteFile(filepath.Join(dir, "hosts.toml"), []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	text := fmt.Sprintf(containerdConfig,
		filepath.Join(s.dir, "root"), filepath.Join(s.run, "state"), s.socket, pauseImage,
		b.plugins, s.netDir(), hosts, b.plan.runtime, filepath.Join(s.run, "runtime"))
	config := filepath.Join(s.dir, "containerd.toml")
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		return nil, err
	}
	return strings.Fields(program + " --config " + config), nil
}
