// Package storage keeps images and the root filesystems of containers on disk:
// read-only layers in containers/storage (overlay driver), writable layers in
// plain directories beside it. It mounts nothing.
//
// Under Options.Root:
//
//	storage/            containers/storage: layers, images
//	containers/<id>/    one writable layer: upper, work, rootfs.json
//	containers/.trash/  writable layers on their way out
//	staging/            layers being unpacked
//	unsynced/           which layers may not be on the disk yet
//	pieces/<layer id>   digests of the files of a layer
//	damaged/            replaced layers that a container may still use
//	removed/<image id>  images that lost their names while a container uses them
//	usage.json          what each image layer occupies
//
// Under Options.RunRoot:
//
//	storage/            the library's locks
//	naming/             names that the library's records may not have yet
package storage

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	cstorage "go.podman.io/storage"
	"go.podman.io/storage/pkg/reexec"
	"golang.org/x/sys/unix"

	"github.com/gantry-cri/gantry/internal/id"
)

// Store is one instance's storage. All methods may be called concurrently.
type Store struct {
	root    string
	runRoot string
	log     *slog.Logger
	lib     cstorage.Store
	lock    *os.File // flock on the root, held until Close

	index    atomic.Pointer[Index]
	problems atomic.Pointer[[]error]

	// recordsLost: some of the library's records were damaged when this process
	// opened the store, so that a layer without an image is not for that garbage.
	recordsLost bool

	// transfers is held for reading while a pull may rely on layers that no
	// image has yet, and for writing while layers are deleted.
	transfers sync.RWMutex

	// records serializes changes to the library's image records. It is held
	// over disk I/O and taken before mu.
	records sync.Mutex

	// mu guards what follows, and is held where the index is replaced.
	// Never held over disk I/O.
	mu      sync.Mutex
	uses    map[id.Container]use // what containers were made from
	aside   bool                 // damaged layers wait in damagedDir for the last container to go
	orphans bool                 // layers without records wait for the containers that use them to go
	removed map[string]bool      // images without names, still on disk

	namings      []naming // oldest first
	namingSerial int64

	unsynced unsyncedLayers
	shapes   shapes

	files fileCache
	usage usageBook
	trash trashCan
	tasks sync.WaitGroup // background deletions, waited for by Close
}

// Reexec runs the helper that containers/storage starts as a child of the
// daemon, when this process is one. main (and TestMain) calls it first and
// returns at once when it reports true.
func Reexec() bool { return reexec.Init() }

// Open opens the store, creating it where there is none, removes what an
// interrupted pull left and builds the index. One process at a time may have
// a root open: the second gets errkind.Precondition. An image that can't be
// read is left out and reported by Problems, never an error.
func Open(o Options) (_ *Store, err error) {
	s := &Store{root: o.Root, runRoot: o.RunRoot, log: o.Log, uses: map[id.Container]use{}, removed: map[string]bool{}}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.usage.period = o.UsagePeriod; s.usage.period <= 0 {
		s.usage.period = 10 * time.Second
	}
	for _, dir := range []string{o.Root, s.containersDir(), s.trashDir(), s.removedDir(), s.emptyDir(), s.stagingDir(), s.damagedDir(), s.unsyncedDir(), s.namingDir(), s.piecesDir()} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return nil, fmt.Errorf("open store: %w", err)
		}
	}
	// Nobody else may run the programs, or open the devices, of an image.
	for _, dir := range []string{s.trashDir(), s.stagingDir(), s.damagedDir()} {
		if err := os.Chmod(dir, 0o700); err != nil {
			return nil, fmt.Errorf("open store: %w", err)
		}
	}
	if s.lock, err = lockRoot(o.Root); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.lock.Close())
		}
	}()
	if err := s.label(o.SELinux); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	damaged := quarantineDamaged(s.graphRoot())
	s.recordsLost = len(damaged) > 0
	removeProbes(s.graphRoot())
	if err := mendLinks(s.graphRoot()); err != nil {
		damaged = append(damaged, fmt.Errorf("links to layers: %w", err))
	}
	if s.lib, err = openLibrary(s.graphRoot(), filepath.Join(o.RunRoot, "storage")); err != nil {
		return nil, fmt.Errorf("open store %s: %w", s.graphRoot(), err)
	}
	if err := s.load(damaged); err != nil {
		return nil, fmt.Errorf("open store %s: %w", s.graphRoot(), err)
	}
	return s, nil
}

// label gives the directories of layers their SELinux label, if there is one:
// whatever is made in them has it too.
func (s *Store) label(label string) error {
	if label == "" {
		return nil
	}
	layers := filepath.Join(s.graphRoot(), "overlay")
	if err := os.MkdirAll(layers, 0o755); err != nil {
		return err
	}
	for _, dir := range []string{layers, s.stagingDir(), s.containersDir(), s.trashDir(), s.emptyDir()} {
		err := unix.Setxattr(dir, "security.selinux", []byte(label), 0)
		if err != nil && err != unix.ENOTSUP { // the whole file system has one label
			return &os.PathError{Op: "label for SELinux", Path: dir, Err: err}
		}
	}
	return nil
}

// load reads everything that is kept in memory.
func (s *Store) load(problems []error) error {
	problems = append(problems, s.loadUses()...)
	if err := s.loadRemoved(); err != nil {
		return err
	}
	var err error
	s.unsynced.dir = s.unsyncedDir()
	if s.unsynced.epoch, err = epoch(s.root); err != nil {
		return err
	}
	s.usage.load(s.usageFile())
	s.usage.stop, s.usage.fresh = make(chan struct{}), make(chan struct{}, 1)
	s.files.init()
	s.shapes.init()
	s.trash.init(s.trashDir(), s.log, &s.tasks)
	problems = append(problems, s.dropUnsynced()...)
	if err := s.loadNamings(); err != nil {
		problems = append(problems, err)
	}
	if err := s.emptyStaging(); err != nil {
		problems = append(problems, fmt.Errorf("reclaim unfinished layers: %w", err))
	}
	s.emptyDamaged()
	if err := s.collectOrphans(); err != nil {
		problems = append(problems, fmt.Errorf("reclaim unfinished layers: %w", err))
	}
	for _, p := range problems {
		s.log.Warn("store record unusable", "err", p)
	}
	s.index.Store(newIndex(nil))
	s.problems.Store(&problems)
	return s.Refresh()
}

// Close waits for background deletions and releases the store. It unmounts
// and deletes nothing; no method may be called afterwards.
func (s *Store) Close() error {
	s.trash.close()
	close(s.usage.stop)
	s.tasks.Wait()
	s.lib.Free()
	return s.lock.Close()
}

// Library is the containers/storage handle below, for internal/image, which
// brackets its use with BeginTransfer and tells the outcome by Adopt.
func (s *Store) Library() cstorage.Store { return s.lib }

// Problems are the records that could not be used: those found at start and
// the images that the last scan left out.
func (s *Store) Problems() []error {
	problems := *s.problems.Load()
	return append(problems[:len(problems):len(problems)], s.index.Load().problems...)
}

// Images is the current snapshot; it never waits.
func (s *Store) Images() *Index { return s.index.Load() }

// ImageDir is the directory that holds the images.
func (s *Store) ImageDir() string { return s.graphRoot() }

// ContainerDir is the directory that holds the writable layers.
func (s *Store) ContainerDir() string { return s.containersDir() }

func (s *Store) graphRoot() string     { return filepath.Join(s.root, "storage") }
func (s *Store) containersDir() string { return filepath.Join(s.root, "containers") }
func (s *Store) trashDir() string      { return filepath.Join(s.root, "containers", ".trash") }
func (s *Store) removedDir() string    { return filepath.Join(s.root, "removed") }
func (s *Store) emptyDir() string      { return filepath.Join(s.root, "empty") }
func (s *Store) unsyncedDir() string   { return filepath.Join(s.root, "unsynced") }
func (s *Store) usageFile() string     { return filepath.Join(s.root, "usage.json") }
