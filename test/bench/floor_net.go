package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/containernetworking/cni/libcni"

	"github.com/gantry-cri/gantry/internal/network"
)

// floorNetwork is the number of the floor's network.
const floorNetwork = 9

// plugins calls the bare CNI plugins.
type plugins struct {
	dir    string
	config *libcni.CNIConfig
	list   *libcni.NetworkConfigList
	limit  time.Duration
	count  int
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
	return &plugins{dir: dir, config: config, list: list, limit: b.plan.call}, nil
}

// addDel times an ADD in a new network namespace, and its DEL.
func (p *plugins) addDel(ctx context.Context) (add, del time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, p.limit)
	defer cancel()
	p.count++
	name := fmt.Sprintf("netns%d", p.count)
	conf := &libcni.RuntimeConf{ContainerID: name, NetNS: filepath.Join(p.dir, name), IfName: "eth0"}
	if err := network.CreateNetNS(conf.NetNS); err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, network.RemoveNetNS(conf.NetNS)) }()
	begin := time.Now()
	if _, err := p.config.AddNetworkList(ctx, p.list, conf); err != nil {
		return 0, 0, fmt.Errorf("bare CNI ADD: %w", err)
	}
	add = time.Since(begin)
	begin = time.Now()
	if err := p.config.DelNetworkList(ctx, p.list, conf); err != nil {
		return add, 0, fmt.Errorf("bare CNI DEL: %w", err)
	}
	return add, time.Since(begin), nil
}
