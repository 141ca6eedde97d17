package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Where host-local keeps leases, unless its configuration says.
// See https://www.cni.dev/plugins/current/ipam/host-local/
const hostLocalDir = "/var/lib/cni/networks"

const leaseLockPatience = 10 * time.Second // for a host-local that has the lock

// freeLostLeases removes host-local's leases that a power loss has emptied, and
// returns their addresses.
//
// A lease is a file named after its address that holds the container's id. It is
// not synced, so that after a power loss it may be there and empty: no DEL finds
// it, and its address would be taken for good. Whoever has the directory's lock
// sees none that is only about to be written. Addresses of kept are left alone.
func freeLostLeases(ctx context.Context, conf string, kept map[netip.Addr]bool) (freed []netip.Addr, err error) {
	dirs, err := leaseDirs(conf)
	if err != nil {
		return nil, err
	}
	for _, dir := range dirs {
		addrs, dirErr := freeLostIn(ctx, dir, kept)
		freed = append(freed, addrs...)
		err = errors.Join(err, dirErr)
	}
	return freed, err
}

// leaseDirs are host-local's directories of a network's configuration list.
func leaseDirs(conf string) ([]string, error) {
	var list struct {
		Name    string `json:"name"`
		Plugins []struct {
			IPAM struct {
				Type    string `json:"type"`
				DataDir string `json:"dataDir"`
			} `json:"ipam"`
		} `json:"plugins"`
	}
	if err := json.Unmarshal([]byte(conf), &list); err != nil {
		return nil, fmt.Errorf("network configuration: %w", err)
	}
	var dirs []string
	for _, p := range list.Plugins {
		if p.IPAM.Type != "host-local" {
			continue
		}
		dir := p.IPAM.DataDir
		if dir == "" {
			dir = hostLocalDir
		}
		dirs = append(dirs, filepath.Join(dir, list.Name))
	}
	return dirs, nil
}

func freeLostIn(ctx context.Context, dir string, kept map[netip.Addr]bool) (freed []netip.Addr, err error) {
	lock, err := lockLeases(ctx, filepath.Join(dir, "lock"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // there never was a lease
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		addr, err := netip.ParseAddr(e.Name())
		if err != nil || kept[addr] {
			continue
		}
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() || info.Size() > 0 {
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
			return freed, err
		}
		freed = append(freed, addr)
	}
	return freed, nil
}

// lockLeases takes the lock that host-local has while it works.
func lockLeases(ctx context.Context, path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, leaseLockPatience)
	defer cancel()
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) || ctx.Err() != nil {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
		}
		time.Sleep(leftoverInterval)
	}
}
