// Package control is what an operator asks of a running daemon beyond the CRI:
// JSON over HTTP on a unix socket that only root can open. Handler serves it,
// Client asks. An answer that takes a while is a stream of JSON values, one a
// line.
package control

import (
	"context"
	"encoding/json"
	"time"

	"github.com/gantry-cri/gantry/internal/image"
	"github.com/gantry-cri/gantry/internal/storage"
)

// SocketName is the socket's name in the run root.
const SocketName = "control.sock"

// Images are the images of the daemon; image.Service is it.
type Images interface {
	List() []storage.Image
	Resolve(ref string) (storage.Image, error)
	Info(img storage.Image) (map[string]string, error)
	Pinned(img storage.Image) bool
	InUse(img storage.Image) bool
	Pull(ctx context.Context, r image.PullRequest) (storage.Image, error)
	Pulls() []image.Progress
	Damaged(ctx context.Context, img storage.Image) ([]string, error)
	Prune(ctx context.Context) ([]storage.Image, error)
}

// Status is how the daemon is.
type Status struct {
	Version string    `json:"version"`
	Commit  string    `json:"commit"`
	PID     int       `json:"pid"`
	Started time.Time `json:"started"`
	Listen  string    `json:"listen"` // the CRI's socket
	Streams string    `json:"streams"`

	Config Configuration `json:"config"`

	Pods       map[string]int   `json:"pods"`       // by state
	Containers map[string]int   `json:"containers"` // by state
	Images     int              `json:"images"`
	ImageBytes uint64           `json:"image_bytes"` // unpacked; shared layers count for each
	Pulls      []image.Progress `json:"pulls"`       // under way
	Calls      []Call           `json:"calls"`       // of the CRI, under way, the oldest first

	Problems   []string `json:"problems"` // as the verbose Status of the CRI lists them
	Damaged    int      `json:"damaged"`  // records that were put aside, among the problems
	Goroutines int      `json:"goroutines"`
	RSS        uint64   `json:"rss"`   // bytes
	Files      int      `json:"files"` // open descriptors
}

// Configuration is what the daemon works with.
type Configuration struct {
	Read        time.Time `json:"read"`                   // when it was read
	NeedRestart []string  `json:"need_restart,omitempty"` // keys whose new values need a restart
	Failed      *Failure  `json:"failed,omitempty"`       // the last reload, among the problems; nil if it succeeded
}

// Failure is what went wrong, and when.
type Failure struct {
	At    time.Time `json:"at"`
	Error string    `json:"error"`
}

// Call is a call of the CRI that has not ended.
type Call struct {
	RPC   string    `json:"rpc"`
	Since time.Time `json:"since"`
}

// Image is one stored image.
type Image struct {
	ID      string    `json:"id"` // with sha256:
	Names   []string  `json:"names"`
	Size    uint64    `json:"size"` // bytes, unpacked
	Created time.Time `json:"created"`
	Pinned  bool      `json:"pinned"`
	InUse   bool      `json:"in_use"` // by a container
}

// Inspection is an image with what its builder and its registry said of it.
type Inspection struct {
	Image
	Info json.RawMessage `json:"info"` // as the CRI's verbose ImageStatus has it
}

// PullUpdate is one line of a pull: how far it is, or its end.
type PullUpdate struct {
	Progress *image.Progress `json:"progress,omitempty"`
	Image    *Image          `json:"image,omitempty"` // it is pulled
	Error    string          `json:"error,omitempty"` // it is not
}

// Verdict is one line of a verification.
type Verdict struct {
	Image   Image    `json:"image"`
	Damaged []string `json:"damaged,omitempty"` // layers whose files are not as they were unpacked
}

// Pruned is the answer to a prune.
type Pruned struct {
	Removed []Image `json:"removed"`
	Error   string  `json:"error,omitempty"` // why not all
}

// problem is the body of an answer that is an error.
type problem struct {
	Error string `json:"error"`
}
