package image

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	cutsEnv   = "GANTRY_TEST_POWER_CUTS" // how many of each file system; 6 if it is not set
	seedEnv   = "GANTRY_TEST_SEED"
	insideEnv = "GANTRY_TEST_POWER_INSIDE"
)

// TestPowerLoss cuts the power at random points of pulls, removals and moving
// tags: a store on a file system on a loop device, whose backing file is cloned
// (atomically, by reflinks of an XFS) while they run. Each clone is what the
// disk would hold at that moment. From each a daemon starts: every image that
// it lists is whole, one that was on the disk before is there, what was
// temporary is gone, and every image comes by a pull.
//
// It runs in a process of its own, whose mounts end with it.
func TestPowerLoss(t *testing.T) {
	if os.Getenv(insideEnv) == "" {
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestPowerLoss$", "-test.v", "-test.timeout=12h")
		cmd.Env = append(os.Environ(), insideEnv+"=yes")
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%v", err)
		}
		t.Logf("%s", out)
		return
	}
	for _, kind := range []string{"ext4", "xfs"} {
		t.Run(kind, func(t *testing.T) { cutPower(t, kind) })
	}
}

func cutPower(t *testing.T, kind string) {
	cuts, rng := numberFrom(t, cutsEnv, 6), seeded(t)
	w, d := newWorld(t), newDisk(t, kind)
	conf := write(t, t.TempDir(), "registries.conf", insecure(w.reg.host))
	s := openService(t, d.mount, func(o *Options) { o.RegistriesConf = conf })
	s.pull(t, w.wanted()[0])
	w.checkClean(t, s) // and so it is on the disk, but for the removal of its marker
	d.sync(t)
	var all outcome
	for done := 0; done < cuts; {
		var clones []string
		w.during(t, s.Service, rng, func() {
			for range min(4, cuts-done) {
				time.Sleep(time.Duration(rng.Int64N(int64(400 * time.Millisecond))))
				clones = append(clones, d.clone(t, done+len(clones)))
			}
		})
		for _, clone := range clones {
			out := d.reboot(t, clone, w)
			all.whole, all.absent, all.reclaimed = all.whole+out.whole, all.absent+out.absent, all.reclaimed+out.reclaimed
			done++
		}
		if t.Failed() {
			break
		}
	}
	s.close(t)
	t.Logf("%d power cuts on "+kind+": %d images found whole, %d absent, %d bytes reclaimed", cuts, all.whole, all.absent, all.reclaimed)
}

func numberFrom(t *testing.T, variable string, otherwise int) int {
	t.Helper()
	text := os.Getenv(variable)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	must(t, err)
	return n
}

// seeded is a source of random points, whose seed is told.
func seeded(t *testing.T) *rand.Rand {
	t.Helper()
	seed := uint64(numberFrom(t, seedEnv, int(rand.Uint32())))
	t.Logf("%s=%d", seedEnv, seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// disk is a file system whose every state can be had.
type disk struct {
	kind  string
	outer string // the XFS that holds the backing file and its clones
	file  string
	mount string
}

func newDisk(t *testing.T, kind string) *disk {
	t.Helper()
	dir := t.TempDir()
	d := &disk{kind: kind, outer: filepath.Join(dir, "outer"), mount: filepath.Join(dir, "disk")}
	d.file = filepath.Join(d.outer, "disk.img")
	format(t, filepath.Join(dir, "outer.img"), 8<<30, "mkfs.xfs", "-q", "-m", "reflink=1")
	mountImage(t, filepath.Join(dir, "outer.img"), d.outer, "xfs")
	format(t, d.file, 1<<30, "mkfs."+kind, "-q")
	mountImage(t, d.file, d.mount, kind)
	return d
}

// format makes a file system in a sparse file.
func format(t *testing.T, file string, size int64, command ...string) {
	t.Helper()
	if _, err := exec.LookPath(command[0]); err != nil {
		t.Fatalf("%s is needed (test/setup/install.sh installs it): %v", command[0], err)
	}
	must(t, os.WriteFile(file, nil, 0o600))
	must(t, os.Truncate(file, size))
	if out, err := exec.Command(command[0], append(command[1:], file)...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %v: %s", command, err, out)
	}
}

// mountImage mounts the file system in a file by a loop device that ends with
// the mount.
func mountImage(t *testing.T, file, dir, kind string) {
	t.Helper()
	must(t, os.MkdirAll(dir, 0o755))
	backing, err := os.OpenFile(file, os.O_RDWR, 0)
	must(t, err)
	defer backing.Close()
	loop := attach(t, backing)
	defer loop.Close()
	data := ""
	if kind == "xfs" {
		data = "nouuid" // a clone has that of its original
	}
	must(t, unix.Mount(loop.Name(), dir, kind, 0, data))
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
}

// attach finds a free loop device, which another process may take first.
func attach(t *testing.T, backing *os.File) *os.File {
	t.Helper()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	must(t, err)
	defer control.Close()
	config := unix.LoopConfig{Fd: uint32(backing.Fd())}
	config.Info.Flags = unix.LO_FLAGS_AUTOCLEAR
	for range 100 {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		must(t, err)
		loop, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", n), os.O_RDWR, 0)
		must(t, err)
		if err = unix.IoctlLoopConfigure(int(loop.Fd()), &config); err == nil {
			return loop
		}
		must(t, loop.Close())
	}
	t.Fatal("no loop device")
	return nil
}

func (d *disk) sync(t *testing.T) {
	t.Helper()
	dir, err := os.Open(d.mount)
	must(t, err)
	defer dir.Close()
	must(t, unix.Syncfs(int(dir.Fd())))
}

// clone is the disk as it is at this moment.
func (d *disk) clone(t *testing.T, number int) string {
	t.Helper()
	from, err := os.Open(d.file)
	must(t, err)
	defer from.Close()
	name := filepath.Join(d.outer, fmt.Sprintf("cut%d.img", number))
	to, err := os.Create(name)
	must(t, err)
	defer to.Close()
	must(t, unix.IoctlFileClone(int(to.Fd()), int(from.Fd())))
	return name
}

// reboot starts from a clone, which goes.
func (d *disk) reboot(t *testing.T, clone string, w *world) outcome {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "disk")
	mountImage(t, clone, dir, d.kind)
	out := w.check(t, dir, true)
	must(t, unix.Unmount(dir, 0))
	must(t, os.Remove(clone))
	t.Logf("%s: %d images whole, %d absent, %d bytes reclaimed", filepath.Base(clone), out.whole, out.absent, out.reclaimed)
	return out
}
