package main

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/containernetworking/cni/libcni"
)

// floorNetwork is the number of the floor's network.
const floorNetwork = 9

// plugins calls the bare CNI plugins.
type plugins struct {
	dir    string
	config *libcni.CNIConfig
	list   *libcni.NetworkConfigList
}

func (b *bench) newPlugins(dir string) (*plugins, error) {
	conflist, err := b.conflist("floor", floorNetwork)
	if err != nil {
		return nil, err
	}
	list, err := libcni.ConfListFromBytes(conflist)
	if err != nil {
		return nil, fmt.Errorf("read the floor's network: %w", err)
	}
	config := libcni.NewCNIConfigWithCacheDir([]string{b.plugins}, filepath.Join(dir, "cni"), nil)
	return &plugins{dir: dir, config: config, list: list}, nil
}

// attachment names an interface in the network namespace of that name.
func (p *plugins) attachment(name string) *libcni.RuntimeConf {
	return &libcni.RuntimeConf{ContainerID: name, NetNS: filepath.Join(p.dir, name), IfName: "eth0"}
}

func (p *plugins) add(ctx context.Context, conf *libcni.RuntimeConf) error {
	if _, err := p.config.AddNetworkList(ctx, p.list, conf); err != nil {
		return fmt.Errorf("bare CNI ADD: %w", err)
	}
	return nil
}

func (p *plugins) del(ctx context.Context, conf *libcni.RuntimeConf) error {
	if err := p.config.DelNetworkList(ctx, p.list, conf); err != nil {
		return fmt.Errorf("bare CNI DEL: %w", err)
	}
	return nil
}
