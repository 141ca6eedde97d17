package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"
)

// trashCan deletes directories in the background, one at a time. A rename
// takes them out of sight first.
type trashCan struct {
	dir   string
	log   *slog.Logger
	tasks *sync.WaitGroup

	mu      sync.Mutex // guards the fields below
	serial  int64
	pending []string
	busy    bool
	closed  bool
}

// init remembers the directory and starts to delete what an earlier process
// left in it.
func (t *trashCan) init(dir string, log *slog.Logger, tasks *sync.WaitGroup) {
	t.dir, t.log, t.tasks = dir, log, tasks
	t.serial = time.Now().UnixNano()
	entries, err := os.ReadDir(dir)
	if err != nil {
		log.Warn("trash not readable", "dir", dir, "err", err)
	}
	for _, e := range entries {
		t.push(filepath.Join(dir, e.Name()))
	}
}

// move makes path disappear. A path that does not exist is no error.
func (t *trashCan) move(path string) error {
	t.mu.Lock()
	t.serial++
	target := filepath.Join(t.dir, strconv.FormatInt(t.serial, 36))
	t.mu.Unlock()
	if err := os.Rename(path, target); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return fmt.Errorf("move to trash: %w", err)
	}
	t.push(target)
	return nil
}

func (t *trashCan) push(path string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pending = append(t.pending, path)
	if !t.busy && !t.closed {
		t.busy = true
		t.tasks.Go(t.empty)
	}
}

// empty deletes until nothing is pending.
func (t *trashCan) empty() {
	for {
		path, ok := t.next()
		if !ok {
			return
		}
		if err := os.RemoveAll(path); err != nil {
			t.log.Warn("not deleted, tried again at the next start", "path", path, "err", err)
		}
	}
}

func (t *trashCan) next() (string, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.pending) == 0 || t.closed {
		t.busy = false
		return "", false
	}
	path := t.pending[0]
	t.pending = t.pending[1:]
	return path, true
}

// close ends the work after the current directory.
func (t *trashCan) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
}
