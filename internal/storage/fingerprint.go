package storage

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"path"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// fingerprint tells whether a layer's directory is still what was unpacked:
// names, kinds, sizes, owners, modes and times, not content. Taking it costs
// one call per file, so each pull can check what it builds upon.
type fingerprint struct {
	Entries uint64 `json:"entries"`
	Sum     string `json:"sum"` // of all entries, in no order
}

// layerNotes is what we keep in a layer's record, where the library has room
// for a text of the driver's.
type layerNotes struct {
	Fingerprint fingerprint `json:"gantryFingerprint"`
}

func (n layerNotes) String() string {
	body, err := json.Marshal(n)
	if err != nil {
		return "" // two plain fields: it can't happen
	}
	return string(body)
}

// parseNotes returns zero notes for a layer that somebody else recorded.
func parseNotes(metadata string) layerNotes {
	var n layerNotes
	if err := json.Unmarshal([]byte(metadata), &n); err != nil {
		return layerNotes{}
	}
	return n
}

// surveyor walks a layer's directory.
type surveyor struct {
	sum    [16]byte
	print  fingerprint
	usage  Usage
	linked map[uint64]bool
}

// survey takes the fingerprint of dir and measures it.
func survey(dir string) (fingerprint, Usage, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fingerprint{}, Usage{}, fmt.Errorf("open layer %s: %w", dir, err)
	}
	s := &surveyor{usage: Usage{At: time.Now()}, linked: map[uint64]bool{}}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fingerprint{}, Usage{}, errors.Join(err, unix.Close(fd))
	}
	// The root's own attributes are set when the layer is committed.
	s.measure(st)
	if err := s.walk(fd, "."); err != nil {
		return fingerprint{}, Usage{}, fmt.Errorf("survey layer %s: %w", dir, err)
	}
	s.print.Sum = hex.EncodeToString(s.sum[:])
	return s.print, s.usage, nil
}

// walk adds what is in a directory; it closes fd.
func (s *surveyor) walk(fd int, name string) error {
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	for {
		names, err := f.Readdirnames(1024)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, base := range names {
			if err := s.add(fd, base, path.Join(name, base)); err != nil {
				return err
			}
		}
	}
}

func (s *surveyor) add(dir int, base, name string) error {
	st, err := lstatAt(dir, base)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	s.measure(st)
	s.note(name, st)
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil
	}
	fd, err := unix.Openat(dir, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return s.walk(fd, name)
}

// note mixes one entry into the sum.
func (s *surveyor) note(name string, st unix.Stat_t) {
	size := st.Size
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		size = 0 // the file system's own affair
	}
	h := fnv.New128a()
	_, _ = io.WriteString(h, name) // a hash takes everything
	var field [8]byte
	for _, v := range []uint64{uint64(st.Mode), uint64(st.Uid), uint64(st.Gid), uint64(size), st.Rdev, uint64(st.Mtim.Nano())} {
		binary.LittleEndian.PutUint64(field[:], v)
		_, _ = h.Write(field[:])
	}
	for i, b := range h.Sum(nil) {
		s.sum[i] ^= b
	}
	s.print.Entries++
}

func (s *surveyor) measure(st unix.Stat_t) {
	if st.Nlink > 1 && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		if s.linked[st.Ino] {
			return
		}
		s.linked[st.Ino] = true
	}
	s.usage.Bytes += uint64(st.Blocks) * 512
	s.usage.Inodes++
}

// epoch names the time since the file system of root was mounted in this boot
// of the machine. What was written in the same epoch can't have been lost.
func epoch(root string) (string, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", err
	}
	// Unique for each mount since Linux 6.8; before, the number is used again.
	const mountIDUnique = 0x4000
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, root, 0, unix.STATX_MNT_ID|mountIDUnique, &st); err != nil {
		return "", fmt.Errorf("statx %s: %w", root, err)
	}
	return string(boot[:len(boot)-1]) + " " + strconv.FormatUint(st.Mnt_id, 10), nil
}
