package sandbox

import (
	"fmt"
	"net/netip"
	"strings"
	"unicode"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/internal/errkind"
	"github.com/gantry-cri/gantry/internal/oci"
)

// hostnameMax is the kernel's limit of a hostname, in bytes (uname(2)).
const hostnameMax = 64

// validate refuses a configuration that can't become a pod, before anything
// is made of it.
func validate(cfg *runtimeapi.PodSandboxConfig) error {
	md := cfg.GetMetadata()
	switch {
	case cfg == nil:
		return invalid("no config given")
	case md == nil:
		return invalid("config.metadata is missing")
	case md.GetName() == "":
		return invalid("config.metadata.name is missing")
	case md.GetNamespace() == "":
		return invalid("config.metadata.namespace is missing")
	case len(cfg.GetHostname()) > hostnameMax:
		return invalid("config.hostname is longer than %d bytes", hostnameMax)
	case cfg.GetHostname() != "" && !oneWord(cfg.GetHostname()) || strings.Contains(cfg.GetHostname(), "/"):
		return invalid("config.hostname %q is no hostname", cfg.GetHostname())
	case cfg.GetLogDirectory() != "" && !strings.HasPrefix(cfg.GetLogDirectory(), "/"):
		return invalid("config.log_directory %q is not absolute", cfg.GetLogDirectory())
	}
	for _, r := range []*runtimeapi.LinuxContainerResources{cfg.GetLinux().GetOverhead(), cfg.GetLinux().GetResources()} {
		if err := oci.CheckResources(r); err != nil {
			return fmt.Errorf("run pod: %w", err)
		}
	}
	if cfg.GetWindows() != nil {
		return invalid("config.windows is set, and this is a Linux node")
	}
	if _, err := oci.SandboxUser(cfg); err != nil {
		return fmt.Errorf("run pod: %w", err)
	}
	if err := validateDNS(cfg.GetDnsConfig()); err != nil {
		return err
	}
	if err := validatePorts(cfg); err != nil {
		return err
	}
	return validateNamespaces(cfg)
}

func validateDNS(dns *runtimeapi.DNSConfig) error {
	for _, s := range dns.GetServers() {
		if _, err := netip.ParseAddr(s); err != nil || !oneWord(s) { // a zone may be anything
			return invalid("config.dns_config.servers: %q is no IP address", s)
		}
	}
	for _, word := range append(append([]string{}, dns.GetSearches()...), dns.GetOptions()...) {
		if !oneWord(word) {
			return invalid("config.dns_config: %q is not one word", word)
		}
	}
	return nil
}

// oneWord reports whether a text can be one word of a file of words and lines.
func oneWord(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) })
}

func validatePorts(cfg *runtimeapi.PodSandboxConfig) error {
	for _, pm := range cfg.GetPortMappings() {
		for _, port := range []int32{pm.GetHostPort(), pm.GetContainerPort()} {
			if port < 0 || port > 65535 {
				return invalid("config.port_mappings: port %d is not between 0 and 65535", port)
			}
		}
		if _, known := runtimeapi.Protocol_name[int32(pm.GetProtocol())]; !known {
			return invalid("config.port_mappings: unknown protocol %d", pm.GetProtocol())
		}
		if pm.GetHostPort() != 0 && pm.GetContainerPort() == 0 {
			return invalid("config.port_mappings: host port %d has no container port", pm.GetHostPort())
		}
		if ip := pm.GetHostIp(); ip != "" {
			if _, err := netip.ParseAddr(ip); err != nil {
				return invalid("config.port_mappings: host ip %q is no IP address", ip)
			}
		}
	}
	return nil
}

// validateNamespaces refuses namespace modes that no pod can have.
func validateNamespaces(cfg *runtimeapi.PodSandboxConfig) error {
	ns := namespaces(cfg)
	for name, mode := range map[string]runtimeapi.NamespaceMode{"network": ns.GetNetwork(), "ipc": ns.GetIpc()} {
		if mode != runtimeapi.NamespaceMode_POD && mode != runtimeapi.NamespaceMode_NODE {
			return invalid("namespace_options.%s can't be %s: only POD and NODE make sense", name, mode)
		}
	}
	if ns.GetPid() == runtimeapi.NamespaceMode_TARGET {
		return invalid("namespace_options.pid of a pod can't be TARGET")
	}
	if _, err := oci.PodUserNamespace(ns); err != nil {
		return fmt.Errorf("run pod: %w", err)
	}
	return nil
}

func invalid(format string, args ...any) error {
	return errkind.Errorf(errkind.Invalid, "run pod: "+format, args...)
}
