package check

import (
	"context"
	"strings"
)

func cni(_ context.Context, n *Node) Result {
	var bins []string
	for _, dir := range n.Config.CNIBinDirs {
		bins = append(bins, n.at(dir))
	}
	found := n.Network(n.at(n.Config.CNIConfDir), bins)
	switch {
	case found.Err == nil && len(found.Problems) > 0:
		return warning("mend or remove these files", "network %q; other files in %s can't be used: %s", found.Name, n.Config.CNIConfDir, strings.Join(found.Problems, "; "))
	case found.Err == nil:
		return ok("network %q of %s", found.Name, found.File)
	case found.Name == "" && len(found.Problems) == 0:
		return warning("the cluster's network add-on brings one; for a node without one see /usr/share/doc/gantry/examples", "no network in %s: the node is not ready, and pods must be on the node's network", n.Config.CNIConfDir)
	case found.Name == "":
		return bad("mend or replace the file", "%v", found.Err)
	}
	return bad("install the plugins (apt install containernetworking-plugins, or the network add-on's own), or set cni_bin_dir", "%v", found.Err)
}

func ipForward(_ context.Context, n *Node) Result {
	if strings.TrimSpace(n.read("/proc/sys/net/ipv4/ip_forward")) != "1" {
		return warning("echo 'net.ipv4.ip_forward = 1' >/etc/sysctl.d/50-kubernetes.conf && sysctl --system",
			"net.ipv4.ip_forward is not 1: kubeadm refuses the node, and pods may not reach others")
	}
	return ok("on")
}

func brNetfilter(_ context.Context, n *Node) Result {
	const fix = "if the network add-on has a bridge: modprobe br_netfilter; echo br_netfilter >/etc/modules-load.d/kubernetes.conf"
	switch strings.TrimSpace(n.read("/proc/sys/net/bridge/bridge-nf-call-iptables")) {
	case "":
		return warning(fix, "the module br_netfilter is not loaded: services may not reach pods on the same node")
	case "0":
		return warning("sysctl -w net.bridge.bridge-nf-call-iptables=1", "net.bridge.bridge-nf-call-iptables is 0: services may not reach pods on the same node")
	}
	return ok("loaded")
}

// bundles are where distributions keep the CA certificates.
var bundles = []string{
	"/etc/ssl/certs/ca-certificates.crt",
	"/etc/pki/tls/certs/ca-bundle.crt",
	"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
	"/etc/ssl/ca-bundle.pem",
	"/etc/ssl/cert.pem",
}

func certificates(_ context.Context, n *Node) Result {
	for _, file := range bundles {
		if strings.Contains(n.read(file), "BEGIN CERTIFICATE") {
			return ok("%s", file)
		}
	}
	return warning("apt install ca-certificates; or put a registry's own CA into "+n.Config.CertsDir,
		"there are none: registries can't be verified, and pulls fail")
}
