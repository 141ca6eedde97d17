package storage

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gantry-cri/gantry/internal/errkind"
	"github.com/gantry-cri/gantry/internal/id"
)

func TestLocateInVolume(t *testing.T) {
	s := newTest(t)
	base := addImage(t, s, "docker.io/library/base:1", layerTar(t, file("f", "x")))
	volume := viewImage(t, s)
	r, err := s.CreateRootFS(id.NewContainer(), base.ID, RootFSOptions{Volumes: []string{volume.ID}})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"": ".", ".": ".", "etc": "etc", "etc/../etc//passwd": "etc/passwd", "merged/": "merged",
		"abs": "etc/passwd", "out": "etc/passwd", "dirlink/a": "merged/a", "wasfile/f": "wasfile/f",
	} {
		if got, err := s.LocateInVolume(r, 0, name); err != nil || got != want {
			t.Errorf("%q: %q, %v, want %q", name, got, err, want)
		}
	}
	for _, name := range []string{"/etc", "..", "etc/../../etc", "gone/file", "hidden/old", "wasdir/f", "loop1", "dangling", "nowhere"} {
		if got, err := s.LocateInVolume(r, 0, name); errkind.Of(err) != errkind.Invalid {
			t.Errorf("%q: %q, %v, want kind Invalid", name, got, err)
		}
	}
}

// TestVolumesStay: an image that is a container's volume is kept as long as the
// container, also by the next daemon.
func TestVolumesStay(t *testing.T) {
	s := newTest(t)
	base := addImage(t, s, "docker.io/library/base:1", layerTar(t, file("f", "x")))
	volume := viewImage(t, s)
	ctr := id.NewContainer()
	r, err := s.CreateRootFS(ctr, base.ID, RootFSOptions{Volumes: []string{volume.ID}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.CreateRootFS(ctr, base.ID, RootFSOptions{}); errkind.Of(err) != errkind.Exists {
		t.Errorf("the same container without its volume: %v", err)
	}
	if err := s.Remove(t.Context(), volume.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := s.CreateRootFS(id.NewContainer(), base.ID, RootFSOptions{Volumes: []string{volume.ID}}); errkind.Of(err) != errkind.NotFound {
		t.Errorf("a removed image as a volume: %v", err)
	}
	clear(s.uses)
	if problems := s.loadUses(); len(problems) > 0 || !s.InUse(volume.ID) || !s.InUse(base.ID) {
		t.Errorf("after a restart: %v, %v", problems, s.uses)
	}
	opened, err := s.OpenRootFS(ctr, base.ID)
	if err != nil || !reflect.DeepEqual(opened, r) {
		t.Errorf("opened %+v, %v, want %+v", opened, err, r)
	}
	for _, dir := range r.Volumes[0] {
		if _, err := os.Stat(dir); err != nil {
			t.Error(err)
		}
	}
	if err := s.RemoveRootFS(ctr); err != nil {
		t.Fatal(err)
	}
	s.tasks.Wait()
	if s.Library().Exists(volume.ID) {
		t.Error("the volume's image outlived the container")
	}
}

// TestWritableLayerOfUserNamespace: what Gantry makes in a writable layer
// belongs to the root of the container's user namespace.
func TestWritableLayerOfUserNamespace(t *testing.T) {
	s := newTest(t)
	owned := dir("owned")
	owned.uid = 7
	beyond := dir("beyond")
	beyond.uid = 70000
	img := addImage(t, s, "docker.io/library/owners:1", layerTar(t, owned, beyond, dir("plain")))
	ids := IDMap{UIDs: IDRange{Host: 100000, Length: 65536}, GIDs: IDRange{Host: 200000, Length: 65536}}
	r, err := s.CreateRootFS(id.NewContainer(), img.ID, RootFSOptions{IDs: ids})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"/owned/new", "/beyond/new", "/plain/new"} {
		if err := s.EnsureDir(r, name); err != nil {
			t.Fatal(err)
		}
	}
	for name, uid := range map[string]uint32{
		".": 100000, "owned": 100007, "owned/new": 100000, "beyond": 100000, "plain": 100000, "plain/new": 100000,
	} {
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(r.Upper, name), &st); err != nil || st.Uid != uid || st.Gid != 200000 {
			t.Errorf("%s: owner %d:%d, %v, want %d:200000", name, st.Uid, st.Gid, err, uid)
		}
	}
}

// TestProbeIDMap: it works here, leaves nothing, and fails where ids are not mapped.
func TestProbeIDMap(t *testing.T) {
	s := newTest(t)
	ids := []syscall.SysProcIDMap{{HostID: 100000, Size: 1000}}
	cmd := exec.Command("sleep", "100")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	namespace, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	defer namespace.Close()
	if err := s.ProbeIDMap(namespace, 100000); err != nil {
		t.Error(err)
	}
	if err := s.ProbeIDMap(namespace, 5); err == nil || !strings.Contains(err.Error(), "100000") {
		t.Errorf("another mapping than expected: %v", err)
	}
	node, err := os.Open("/proc/self/ns/user")
	if err != nil {
		t.Fatal(err)
	}
	defer node.Close()
	if err := s.ProbeIDMap(node, 0); err == nil {
		t.Error("the node's namespace maps ids")
	}
	if left, err := os.ReadDir(s.stagingDir()); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	if text, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(text), s.root) {
		t.Errorf("mounts left: %v\n%s", err, text)
	}
}
