package streaming

import (
	"crypto/rand"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/gantry-cri/gantry/internal/errkind"
)

const (
	ticketLife = time.Minute
	maxTickets = 1000
)

// tickets are the sessions that were asked for and have not begun. A ticket is
// a path, /KIND/TOKEN, that works once and for a minute.
type tickets struct {
	mu   sync.Mutex // guards open
	open map[string]ticket
}

type ticket struct {
	serve   http.HandlerFunc
	expires time.Time
}

// issue returns the path at which serve answers. The error is of kind
// Exhausted while too many tickets are open.
func (t *tickets) issue(kind string, serve http.HandlerFunc) (string, error) {
	now := time.Now()
	path := "/" + kind + "/" + rand.Text()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expireLocked(now)
	if len(t.open) >= maxTickets {
		return "", errkind.Errorf(errkind.Exhausted, "%s: %d sessions wait to be begun", kind, len(t.open))
	}
	if t.open == nil {
		t.open = map[string]ticket{}
	}
	t.open[path] = ticket{serve, now.Add(ticketLife)}
	return path, nil
}

func (t *tickets) expireLocked(now time.Time) {
	for path, ticket := range t.open {
		if now.After(ticket.expires) {
			delete(t.open, path)
		}
	}
}

// take returns what answers at path, once; nil if there is nothing.
func (t *tickets) take(path string) http.HandlerFunc {
	t.mu.Lock()
	defer t.mu.Unlock()
	ticket, ok := t.open[path]
	delete(t.open, path)
	if !ok || time.Now().After(ticket.expires) {
		return nil
	}
	return ticket.serve
}

// ServeHTTP answers the holders of tickets.
func (t *tickets) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodPost {
		http.Error(w, "use GET or POST", http.StatusMethodNotAllowed)
		return
	}
	serve := t.take(strings.TrimSuffix(r.URL.Path, "/"))
	if serve == nil {
		http.NotFound(w, r)
		return
	}
	serve(w, r)
}
