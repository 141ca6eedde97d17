package network

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"
)

const (
	settle    = 50 * time.Millisecond  // without events, before a change is acted on
	settleMax = 500 * time.Millisecond // with events going on
)

// watcher tells when something changes in directories that may not exist, may
// be replaced, and may be reached by symbolic links.
type watcher struct {
	fs   *fsnotify.Watcher
	dirs []string // absolute; used by run only

	next chan []string // the directories from now on; holds the latest

	// blind is set while something that exists is not watched: the node has
	// no inotify watches left.
	blind atomic.Bool

	watched []string // what fs watches; used by run only
	own     []string // of these: the directories, where links lead, and the directories in them
}

func newWatcher(dirs []string) (*watcher, error) {
	fs, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, err
	}
	return &watcher{fs: fs, dirs: clean(dirs), next: make(chan []string, 1)}, nil
}

func clean(dirs []string) []string {
	var out []string
	for _, dir := range dirs {
		out = append(out, filepath.Clean(dir))
	}
	return out
}

// follow has run watch other directories. It does not wait. Only one caller at a
// time.
func (w *watcher) follow(dirs []string) {
	select {
	case <-w.next: // not looked at yet
	default:
	}
	w.next <- clean(dirs) // there is room: nobody else sends
}

// run calls changed once at the start and after each burst of changes, until
// close. changed sees every change that was made before it was called.
func (w *watcher) run(changed func()) {
	w.rearm()
	changed()
	settled := time.NewTimer(0)
	settled.Stop()
	var first time.Time // of the burst; zero between bursts
	for {
		select {
		case e, ok := <-w.fs.Events:
			if !ok {
				return
			}
			if !w.concerns(e.Name) {
				continue
			}
		case _, ok := <-w.fs.Errors: // events were lost
			if !ok {
				return
			}
		case w.dirs = <-w.next:
			w.rearm()
			changed()
			continue
		case <-settled.C:
			first = time.Time{}
			w.rearm()
			changed()
			continue
		}
		if first.IsZero() {
			first = time.Now()
		}
		settled.Reset(max(0, min(settle, settleMax-time.Since(first))))
	}
}

func (w *watcher) close() error { return w.fs.Close() }

// rearm watches what is now at the paths: a watch follows the directory it was
// made for, not the path. Ancestors are watched as well, from the root down, so
// that whatever appears or is replaced after it was looked for makes an event.
func (w *watcher) rearm() {
	for _, path := range w.watched {
		_ = w.fs.Remove(path) // fails if the directory is gone, and the watch with it
	}
	w.watched, w.own = nil, nil
	w.blind.Store(false)
	for _, dir := range w.dirs {
		w.arm(dir)
		if real, err := filepath.EvalSymlinks(dir); err == nil && real != dir {
			w.arm(real)
		}
	}
}

// arm watches dir, its ancestors and the directories in it, as far as they exist.
func (w *watcher) arm(dir string) {
	for i, c := range dir {
		if c == '/' && !w.add(dir[:max(i, 1)]) {
			return
		}
	}
	if !w.add(dir) {
		return
	}
	w.own = append(w.own, dir)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return // it is gone again, which makes an event
	}
	for _, e := range entries {
		if sub := filepath.Join(dir, e.Name()); e.IsDir() && w.add(sub) {
			w.own = append(w.own, sub)
		}
	}
}

func (w *watcher) add(path string) bool {
	if slices.Contains(w.watched, path) {
		return true
	}
	if err := w.fs.Add(path); err != nil {
		if errors.Is(err, unix.ENOSPC) {
			w.blind.Store(true)
		}
		return false
	}
	w.watched = append(w.watched, path)
	return true
}

// concerns reports whether an event at path can matter: it is in one of our
// directories, or is one, or leads to one.
func (w *watcher) concerns(path string) bool {
	path = filepath.Clean(path)
	return slices.Contains(w.own, filepath.Dir(path)) || slices.Contains(w.watched, path) ||
		slices.ContainsFunc(w.dirs, func(dir string) bool { return dir == path || strings.HasPrefix(dir, path+"/") })
}
