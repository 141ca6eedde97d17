package network

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/containernetworking/cni/libcni"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"
)

// The bridge and ptp plugins masquerade a pod's addresses, and their DEL learns
// these from the pod's interface only. Where that is gone (a privileged
// container removed it, someone unpinned the namespace, an earlier DEL was cut
// short), every such pod would leave its rules behind. So DEL is then given a
// stand-in: a namespace with an interface of the same name and addresses. Where
// only the addresses are gone, because the pod's sandbox has a network stack of
// its own and has taken them over (gVisor), they are put back.

// needsStandIn reports whether DEL would not find what it has to undo.
func needsStandIn(list *libcni.NetworkConfigList, r *record) bool {
	return len(r.Raw) > 0 && slices.ContainsFunc(list.Plugins, masquerades) && !hasInterface(r.NetNS, r.IfName)
}

func masquerades(p *libcni.PluginConfig) bool {
	var conf struct {
		IPMasq bool `json:"ipMasq"`
	}
	return (p.Network.Type == "bridge" || p.Network.Type == "ptp") &&
		json.Unmarshal(p.Bytes, &conf) == nil && conf.IPMasq
}

func hasInterface(netns, name string) bool {
	return isNetNS(netns) && insideNetNS(netns, func() error {
		_, err := net.InterfaceByName(name)
		return err
	}) == nil
}

// putAddressesBack gives the pod's interface the addresses that it had after
// ADD, if it has none of them any more.
func putAddressesBack(r *record) error {
	var result types100.Result
	if err := json.Unmarshal(r.Raw, &result); err != nil {
		return fmt.Errorf("the recorded result: %w", err)
	}
	return insideNetNS(r.NetNS, func() error {
		link, err := netlink.LinkByName(r.IfName)
		if err != nil {
			return fmt.Errorf("find %s: %w", r.IfName, err)
		}
		has, err := netlink.AddrList(link, netlink.FAMILY_ALL)
		if err != nil {
			return fmt.Errorf("addresses of %s: %w", r.IfName, err)
		}
		if slices.ContainsFunc(has, func(a netlink.Addr) bool { return slices.ContainsFunc(r.IPs, sameAddress(a)) }) {
			return nil
		}
		return addAddresses(link, r, result)
	})
}

func sameAddress(a netlink.Addr) func(netip.Addr) bool {
	return func(addr netip.Addr) bool { return a.IP.Equal(addr.AsSlice()) }
}

// makeStandIn makes a stand-in at path. The caller removes it with RemoveNetNS.
func makeStandIn(path string, r *record) error {
	var result types100.Result
	if err := json.Unmarshal(r.Raw, &result); err != nil {
		return fmt.Errorf("the recorded result: %w", err)
	}
	if err := RemoveNetNS(path); err != nil { // of a daemon that was killed
		return err
	}
	if err := CreateNetNS(path); err != nil {
		return err
	}
	return insideNetNS(path, func() error {
		link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: r.IfName}, PeerName: "peer"}
		if err := netlink.LinkAdd(link); err != nil {
			return fmt.Errorf("add %s: %w", r.IfName, err)
		}
		return addAddresses(link, r, result)
	})
}

// addAddresses gives an interface the pod's addresses.
func addAddresses(link netlink.Link, r *record, result types100.Result) error {
	for _, ip := range result.IPs {
		if !slices.ContainsFunc(r.IPs, addressIs(ip)) {
			continue
		}
		if err := netlink.AddrAdd(link, &netlink.Addr{IPNet: &ip.Address}); err != nil {
			return fmt.Errorf("add %v to %s: %w", ip.Address.IP, r.IfName, err)
		}
	}
	return nil
}

func addressIs(ip *types100.IPConfig) func(netip.Addr) bool {
	return func(addr netip.Addr) bool { return ip != nil && ip.Address.IP.Equal(addr.AsSlice()) }
}
