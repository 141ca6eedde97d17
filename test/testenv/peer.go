package testenv

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// peerVariable names another CRI daemon to run the tests against, to tell a
// test's own fault from Gantry's: "containerd" (Debian's package). What is said
// about leaks and files of Gantry's own is left out then.
const peerVariable = "GANTRY_TEST_PEER"

// Peer reports whether the tests run against another daemon than Gantry.
func Peer() bool { return os.Getenv(peerVariable) != "" }

func (e *Env) peerCommand() (*exec.Cmd, error) {
	if name := os.Getenv(peerVariable); name != "containerd" {
		return nil, fmt.Errorf("%s: %q is not a known peer", peerVariable, name)
	}
	var hosts strings.Builder
	for _, host := range registryHosts() {
		dir := e.path("hosts.d", host)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
		fmt.Fprintf(&hosts, "[host.%q]\n  capabilities = [\"pull\", \"resolve\"]\n", "http://"+e.registry)
		if err := os.WriteFile(filepath.Join(dir, "hosts.toml"), []byte(hosts.String()), 0o644); err != nil {
			return nil, err
		}
		hosts.Reset()
	}
	config := fmt.Sprintf(`version = 2
root = %q
state = %q
[grpc]
  address = %q
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "registry.k8s.io/pause:3.9"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = %q
    conf_dir = %q
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = %q
  [plugins."io.containerd.grpc.v1.cri".containerd]
    default_runtime_name = %q
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.%s]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.%s.options]
      BinaryName = %q
      Root = %q
`, e.Root, e.RunRoot, e.Socket, e.pluginDir[0], e.CNIConfDir, e.path("hosts.d"),
		e.RuntimeName, e.RuntimeName, e.RuntimeName, Program(e.t, e.RuntimeName), filepath.Join(e.RunRoot, "runtime"))
	if err := os.WriteFile(e.path("containerd.toml"), []byte(config), 0o644); err != nil {
		return nil, err
	}
	return exec.Command(Program(e.t, "containerd"), "--config", e.path("containerd.toml")), nil
}
