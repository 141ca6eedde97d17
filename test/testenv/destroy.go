package testenv

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// destroy removes whatever is left of the environment, by force.
func (e *Env) destroy() {
	e.killAll()
	mounts := e.mounts()
	slices.Reverse(mounts)
	for _, mount := range mounts {
		_ = unix.Unmount(mount, unix.MNT_DETACH)
	}
	if bridge, err := netlink.LinkByName(e.Bridge); err == nil {
		for _, name := range e.links() {
			if link, err := netlink.LinkByName(name); err == nil {
				_ = netlink.LinkDel(link)
			}
		}
		_ = netlink.LinkDel(bridge)
	}
	e.stopSlice(e.CgroupParent)
	for _, top := range e.cgroupTops() {
		removeCgroups(top)
	}
	if os.Getenv("GANTRY_TEST_KEEP") != "" && e.t.Failed() {
		e.t.Logf("kept %s", e.Dir)
		return
	}
	if err := os.RemoveAll(e.Dir); err != nil {
		e.t.Errorf("remove the environment: %v", err)
	}
}

// killAll kills what processes lists until the list is empty, for 5 s at most.
func (e *Env) killAll() {
	for range 100 {
		list := e.processes()
		if len(list) == 0 {
			return
		}
		for _, what := range list {
			word, _, _ := strings.Cut(what, " ")
			if pid, err := strconv.Atoi(word); err == nil {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
}
