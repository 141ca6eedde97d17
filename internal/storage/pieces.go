package storage

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/gantry-cri/gantry/internal/id"
)

// Piece is a part of a file of a layer, or the whole of it, known by what it
// contains.
type Piece struct {
	Digest [sha256.Size]byte
	Path   string // relative to the layer's root
	Offset int64  // in the file
	Size   int64
}

// StoredPiece is where the content of a piece may be had. Nobody has looked
// whether it is still there: who uses it checks what comes of it.
type StoredPiece struct {
	dir string
	Piece
}

const piecesMagic = "gantry pieces 1\n"

// notePieces remembers the pieces of a layer that was committed. Without them
// later pulls fetch more, so nothing is an error.
func (s *Store) notePieces(l NewLayer) {
	if len(l.Pieces) == 0 {
		return
	}
	path := s.piecesFile(l.ID)
	err := writePieces(path+".tmp", l.Pieces)
	if err == nil {
		err = os.Rename(path+".tmp", path)
	}
	if err != nil {
		s.log.Warn("contents of a layer not recorded, later pulls fetch more", "layer", l.ID, "err", err)
	}
}

func writePieces(path string, pieces []Piece) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	_, _ = w.WriteString(piecesMagic) // Flush tells
	var number [binary.MaxVarintLen64]byte
	put := func(n int64) { _, _ = w.Write(number[:binary.PutUvarint(number[:], uint64(n))]) }
	for _, p := range pieces {
		_, _ = w.Write(p.Digest[:])
		put(p.Offset)
		put(p.Size)
		put(int64(len(p.Path)))
		_, _ = w.WriteString(p.Path)
	}
	return errors.Join(w.Flush(), f.Close())
}

// FindPieces looks for stored pieces of the given digests and sizes. The
// caller has called BeginTransfer, which keeps their layers.
func (s *Store) FindPieces(want map[[sha256.Size]byte]int64) map[[sha256.Size]byte]StoredPiece {
	found := map[[sha256.Size]byte]StoredPiece{}
	entries, err := os.ReadDir(s.piecesDir())
	if err != nil {
		return found
	}
	for _, e := range entries {
		if !id.Valid(e.Name()) || !s.lib.Exists(e.Name()) {
			continue
		}
		dir, err := s.layerDir(e.Name())
		if err != nil {
			continue
		}
		err = eachPiece(s.piecesFile(e.Name()), func(p Piece) {
			if size, wanted := want[p.Digest]; wanted && size == p.Size {
				found[p.Digest] = StoredPiece{dir, p}
			}
		})
		if err != nil {
			s.log.Debug("contents of a layer not read", "layer", e.Name(), "err", err)
		}
	}
	return found
}

// eachPiece reads a file of notePieces, which power loss may have cut.
func eachPiece(path string, do func(Piece)) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	r := bufio.NewReaderSize(f, 64<<10)
	magic := make([]byte, len(piecesMagic))
	if _, err := io.ReadFull(r, magic); err != nil || string(magic) != piecesMagic {
		return fmt.Errorf("not a list of pieces: %w", err)
	}
	name := make([]byte, maxPath)
	for {
		var p Piece
		if _, err := io.ReadFull(r, p.Digest[:]); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		var numbers [3]uint64
		for i := range numbers {
			if numbers[i], err = binary.ReadUvarint(r); err != nil {
				return err
			}
		}
		if numbers[2] > maxPath {
			return errors.New("a name that is too long")
		}
		if _, err := io.ReadFull(r, name[:numbers[2]]); err != nil {
			return err
		}
		p.Offset, p.Size, p.Path = int64(numbers[0]), int64(numbers[1]), string(name[:numbers[2]])
		do(p)
	}
}

// Open reads the piece.
func (p StoredPiece) Open() (io.ReadCloser, error) {
	name, err := cleanName(p.Path)
	if err != nil {
		return nil, err
	}
	root, err := unix.Open(p.dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open layer %s: %w", p.dir, err)
	}
	defer unix.Close(root)
	how := unix.OpenHow{Flags: unix.O_RDONLY | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: inRoot}
	fd, err := unix.Openat2(root, name, &how)
	if err != nil {
		return nil, fmt.Errorf("open %.200q: %w", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(fmt.Errorf("%.200q is not a regular file: %w", name, fs.ErrInvalid), err, f.Close())
	}
	return section{io.NewSectionReader(f, p.Offset, p.Size), f}, nil
}

// section is a part of a file.
type section struct {
	io.Reader
	io.Closer
}

// dropPieces forgets layers that are gone.
func (s *Store) dropPieces(layers map[string]bool) {
	entries, err := os.ReadDir(s.piecesDir())
	if err != nil {
		return // there are none
	}
	for _, e := range entries {
		if !layers[e.Name()] {
			_ = os.Remove(filepath.Join(s.piecesDir(), e.Name())) // tried again the next time
		}
	}
}

func (s *Store) piecesDir() string { return filepath.Join(s.root, "pieces") }

func (s *Store) piecesFile(layer string) string { return filepath.Join(s.piecesDir(), layer) }
