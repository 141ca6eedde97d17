package sandbox

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/internal/network"
)

// writeEtc writes the files that do not depend on the network.
func (p *Pod) writeEtc() error {
	resolv, err := resolvConf(p.Config().GetDnsConfig())
	if err != nil {
		return err
	}
	if err := p.writeEtcFile("resolv.conf", resolv); err != nil {
		return err
	}
	return p.writeEtcFile("hostname", p.Record.Hostname+"\n")
}

// writeHosts writes /etc/hosts, which names the pod's addresses; on the node's
// network it is a copy of the node's. The kubelet mounts one of its own over it.
func (p *Pod) writeHosts(ips []netip.Addr) error {
	if p.HostNetwork() {
		node, err := os.ReadFile("/etc/hosts")
		if err != nil && !os.IsNotExist(err) {
			return err
		}
		return p.writeEtcFile("hosts", string(node))
	}
	return p.writeEtcFile("hosts", hosts(p.Record.Hostname, ips))
}

func (p *Pod) writeEtcFile(name, content string) error {
	path := filepath.Join(p.dir, etcDir, name)
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		return fmt.Errorf("write the pod's /etc/%s: %w", name, err)
	}
	if p.host.UserNS == nil {
		return nil
	}
	uid, gid := p.host.UserNS.Root()
	return os.Chown(path, int(uid), int(gid))
}

func hosts(hostname string, ips []netip.Addr) string {
	var b strings.Builder
	b.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\nff00::0\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n")
	for _, ip := range ips {
		fmt.Fprintf(&b, "%s\t%s\n", ip, hostname)
	}
	return b.String()
}

// resolvConf renders a DNS configuration per resolv.conf(5). Without one (nil
// or empty) the pod gets the node's file.
func resolvConf(dns *runtimeapi.DNSConfig) (string, error) {
	if len(dns.GetServers()) == 0 && len(dns.GetSearches()) == 0 && len(dns.GetOptions()) == 0 {
		node, err := os.ReadFile("/etc/resolv.conf")
		if err != nil && !os.IsNotExist(err) {
			return "", fmt.Errorf("the node's resolv.conf: %w", err)
		}
		return string(node), nil
	}
	var b strings.Builder
	if s := dns.GetSearches(); len(s) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(s, " "))
	}
	for _, s := range dns.GetServers() {
		fmt.Fprintf(&b, "nameserver %s\n", s)
	}
	if o := dns.GetOptions(); len(o) > 0 {
		fmt.Fprintf(&b, "options %s\n", strings.Join(o, " "))
	}
	return b.String(), nil
}

// portMappings are the pod's host ports; one without a host port maps nothing.
func portMappings(cfg *runtimeapi.PodSandboxConfig) []network.PortMapping {
	var out []network.PortMapping
	for _, pm := range cfg.GetPortMappings() {
		if pm.GetHostPort() == 0 {
			continue
		}
		out = append(out, network.PortMapping{
			HostPort:      int(pm.GetHostPort()),
			ContainerPort: int(pm.GetContainerPort()),
			Protocol:      strings.ToLower(pm.GetProtocol().String()),
			HostIP:        pm.GetHostIp(),
		})
	}
	return out
}

func dnsConfig(cfg *runtimeapi.PodSandboxConfig) network.DNS {
	d := cfg.GetDnsConfig()
	return network.DNS{Servers: d.GetServers(), Searches: d.GetSearches(), Options: d.GetOptions()}
}
