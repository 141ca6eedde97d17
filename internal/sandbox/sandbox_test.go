package sandbox

import (
	"net/netip"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/internal/errkind"
)

func TestTransitions(t *testing.T) {
	states := []State{0, Ready, Broken, Stopping, Stopped}
	allowed := map[[2]State]bool{
		{Ready, Broken}:      true,
		{Ready, Stopping}:    true,
		{Broken, Stopping}:   true,
		{Stopping, Stopping}: true,
		{Stopping, Stopped}:  true,
	}
	for _, from := range states {
		for _, to := range states {
			if got := from.next(to); got != allowed[[2]State{from, to}] {
				t.Errorf("%v to %v: %v", from, to, got)
			}
		}
	}
}

func TestResolvConf(t *testing.T) {
	got, err := resolvConf(&runtimeapi.DNSConfig{
		Servers: []string{"8.8.8.8", "fd00::1"}, Searches: []string{"a.b", "c"}, Options: []string{"ndots:5"}})
	if want := "search a.b c\nnameserver 8.8.8.8\nnameserver fd00::1\noptions ndots:5\n"; err != nil || got != want {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
}

func TestHosts(t *testing.T) {
	got := hosts("web", []netip.Addr{netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("fd00::2")})
	for _, line := range []string{"127.0.0.1\tlocalhost\n", "10.0.0.2\tweb\n", "fd00::2\tweb\n"} {
		if !strings.Contains(got, line) {
			t.Errorf("no line %q in %q", line, got)
		}
	}
}

func valid() *runtimeapi.PodSandboxConfig {
	return &runtimeapi.PodSandboxConfig{Metadata: &runtimeapi.PodSandboxMetadata{Name: "n", Namespace: "ns"}}
}

func TestValidate(t *testing.T) {
	if err := validate(valid()); err != nil {
		t.Fatalf("the least configuration: %v", err)
	}
	for name, spoil := range map[string]func(*runtimeapi.PodSandboxConfig){
		"metadata":      func(c *runtimeapi.PodSandboxConfig) { c.Metadata = nil },
		"metadata.name": func(c *runtimeapi.PodSandboxConfig) { c.Metadata.Name = "" },
		"namespace":     func(c *runtimeapi.PodSandboxConfig) { c.Metadata.Namespace = "" },
		"hostname":      func(c *runtimeapi.PodSandboxConfig) { c.Hostname = strings.Repeat("a", 65) },
		"no hostname":   func(c *runtimeapi.PodSandboxConfig) { c.Hostname = "../../etc" },
		"log_directory": func(c *runtimeapi.PodSandboxConfig) { c.LogDirectory = "logs" },
		"servers":       func(c *runtimeapi.PodSandboxConfig) { c.DnsConfig = &runtimeapi.DNSConfig{Servers: []string{"x\ny"}} },
		"dns_config": func(c *runtimeapi.PodSandboxConfig) {
			c.DnsConfig = &runtimeapi.DNSConfig{Searches: []string{"a\nnameserver 1.1.1.1"}}
		},
		"65536": func(c *runtimeapi.PodSandboxConfig) {
			c.PortMappings = []*runtimeapi.PortMapping{{HostPort: 65536, ContainerPort: 1}}
		},
		"container port": func(c *runtimeapi.PodSandboxConfig) { c.PortMappings = []*runtimeapi.PortMapping{{HostPort: 80}} },
		"host ip": func(c *runtimeapi.PodSandboxConfig) {
			c.PortMappings = []*runtimeapi.PortMapping{{HostPort: 80, ContainerPort: 80, HostIp: "x"}}
		},
		"TARGET": func(c *runtimeapi.PodSandboxConfig) {
			setNamespaces(c, &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_TARGET})
		},
		"CONTAINER": func(c *runtimeapi.PodSandboxConfig) {
			setNamespaces(c, &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_CONTAINER})
		},
	} {
		cfg := valid()
		spoil(cfg)
		err := validate(cfg)
		if errkind.Of(err) != errkind.Invalid || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := validate(nil); errkind.Of(err) != errkind.Invalid {
		t.Errorf("no config: %v", err)
	}
}

func setNamespaces(c *runtimeapi.PodSandboxConfig, o *runtimeapi.NamespaceOption) {
	c.Linux = &runtimeapi.LinuxPodSandboxConfig{SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: o}}
}
